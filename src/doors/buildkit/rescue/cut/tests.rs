use proptest::prelude::*;

use super::super::super::splice::put_field;
use super::super::definitions::Room;
use super::*;

/// An operation with these inputs; `name` tells it from others.
fn operation(name: usize, inputs: &[(Digest, i64)]) -> Vec<u8> {
    let inputs = inputs.iter().map(|(digest, index)| pb::Input {
        digest: digest.to_string(),
        index: *index,
    });
    let file = pb::FileActionMkFile {
        path: format!("/{name}"),
        ..pb::FileActionMkFile::default()
    };
    let action = pb::FileAction {
        action: Some(pb::file_action::Action::Mkfile(file)),
        ..pb::FileAction::default()
    };
    let op = pb::op::Op::File(pb::FileOp {
        actions: vec![action],
    });
    let op = pb::Op {
        inputs: inputs.collect(),
        op: Some(op),
    };
    op.encode_to_vec()
}

fn definition(operations: &[Vec<u8>], result: Digest) -> pb::Definition {
    let end = pb::Op {
        inputs: vec![pb::Input {
            digest: result.to_string(),
            index: 0,
        }],
        op: None,
    };
    let operations = operations.iter().cloned().map(Bytes::from);
    pb::Definition {
        def: operations.chain([end.encode_to_vec().into()]).collect(),
        ..pb::Definition::default()
    }
}

fn kept(definitions: &[pb::Definition]) -> Definitions {
    let (room, mut kept) = (Room::default(), Definitions::default());
    for definition in definitions {
        kept.add(&definition.encode_to_vec(), &room).unwrap();
    }
    kept
}

/// A graph in which each operation stands on earlier ones, by their numbers.
fn graph(parents: &[Vec<usize>]) -> (Vec<Digest>, pb::Definition) {
    let (mut names, mut operations) = (Vec::new(), Vec::new());
    for (at, parents) in parents.iter().enumerate() {
        let inputs: Vec<Edge> = parents.iter().map(|&parent| (names[parent], 0)).collect();
        let bytes = operation(at, &inputs);
        names.push(Digest::of(&bytes));
        operations.push(bytes);
    }
    let result = *names.last().unwrap();
    (names, definition(&operations, result))
}

/// The cut, with a pattern that changes nothing.
fn cut(definitions: &Definitions, succeeded: &HashSet<Digest>) -> Option<Cut> {
    super::cut(definitions, succeeded, "none")
}

fn some(names: &[Digest], at: &[usize]) -> HashSet<Digest> {
    at.iter().map(|&at| names[at]).collect()
}

/// Reads a definition as BuildKit does: gives the operation that is its result.
fn load(definition: &[u8]) -> (HashMap<Digest, pb::Op>, pb::Op) {
    let definition = pb::Definition::decode(definition).unwrap();
    let operations = definition.def.iter().map(|bytes| {
        let op = pb::Op::decode(bytes.clone()).unwrap();
        (Digest::of(bytes), op)
    });
    let operations: HashMap<Digest, pb::Op> = operations.collect();
    let last = pb::Op::decode(definition.def.last().unwrap().clone()).unwrap();
    assert_eq!(last.inputs.len(), 1);
    let result = operations[&last.inputs[0].digest.parse().unwrap()].clone();
    for op in operations.values() {
        for input in &op.inputs {
            assert!(operations.contains_key(&input.digest.parse().unwrap()));
            assert!(input.index >= 0);
        }
    }
    (operations, result)
}

/// What a cut keeps: all but the result's name, and our merge.
fn kept_by(cut: &Cut) -> HashSet<Digest> {
    let definition = pb::Definition::decode(cut.definition.as_slice()).unwrap();
    let ours = 1 + usize::from(cut.ends > 1);
    let kept = &definition.def[..definition.def.len() - ours];
    kept.iter().map(|bytes| Digest::of(bytes)).collect()
}

#[test]
fn the_last_step_that_succeeded_is_the_result_and_what_failed_is_gone() {
    // A source, three steps on it, one after another; the last fails.
    let (names, definition) = graph(&[vec![], vec![0], vec![1], vec![2]]);
    let cut = cut(
        &kept(std::slice::from_ref(&definition)),
        &some(&names, &[1, 2]),
    )
    .unwrap();
    assert_eq!((cut.steps, cut.ends), (2, 1));
    assert_eq!(kept_by(&cut), some(&names, &[0, 1, 2]));
    let (operations, result) = load(&cut.definition);
    assert_eq!(operations.len(), 4);
    assert_eq!(result.encode_to_vec(), definition.def[2]);
}

#[test]
fn several_ends_are_merged() {
    let (names, definition) = graph(&[vec![], vec![0], vec![0], vec![1, 2]]);
    let cut = cut(&kept(&[definition]), &some(&names, &[1, 2])).unwrap();
    assert_eq!((cut.steps, cut.ends), (2, 2));
    let (_, result) = load(&cut.definition);
    let Some(pb::op::Op::Merge(merge)) = &result.op else {
        panic!("{result:?}");
    };
    let inputs: Vec<i64> = merge.inputs.iter().map(|input| input.input).collect();
    assert_eq!(inputs, [0, 1]);
    let merged: HashSet<Digest> = result
        .inputs
        .iter()
        .map(|input| input.digest.parse().unwrap())
        .collect();
    assert_eq!(merged, some(&names, &[1, 2]));
}

#[test]
fn a_step_that_was_loaded_covers_those_that_nobody_had_to_look_at() {
    let (names, definition) = graph(&[vec![], vec![0], vec![1], vec![2]]);
    let cut = cut(&kept(&[definition]), &some(&names, &[2])).unwrap();
    assert_eq!((cut.steps, cut.ends), (1, 1));
    assert_eq!(kept_by(&cut), some(&names, &[0, 1, 2]));
}

#[test]
fn sources_alone_and_unknown_names_are_nothing() {
    let (names, definition) = graph(&[vec![], vec![0]]);
    let kept = kept(&[definition]);
    assert!(cut(&kept, &some(&names, &[0])).is_none());
    assert!(cut(&kept, &[Digest::of(b"renamed")].into()).is_none());
    assert!(cut(&kept, &HashSet::new()).is_none());
}

#[test]
fn a_step_of_several_outputs_is_kept_only_below_another() {
    let source = operation(0, &[]);
    let below = operation(1, &[(Digest::of(&source), 0)]);
    let forked = operation(2, &[(Digest::of(&below), 0)]);
    let name = Digest::of(&forked);
    let [left, right] = [(3, 0), (4, 1)].map(|(at, output)| operation(at, &[(name, output)]));
    let (left_name, right_name) = (Digest::of(&left), Digest::of(&right));
    let top = operation(5, &[(left_name, 0), (right_name, 0)]);
    let result = Digest::of(&top);
    let kept = kept(&[definition(
        &[source, below.clone(), forked, left, right, top],
        result,
    )]);
    let below = Digest::of(&below);
    let forked_alone = cut(&kept, &[below, name].into()).unwrap();
    let alone = kept_by(&forked_alone);
    assert!(!alone.contains(&name) && alone.contains(&below));
    let with_one = cut(&kept, &[below, name, left_name].into()).unwrap();
    assert!(kept_by(&with_one).contains(&name) && with_one.ends == 1);
}

#[test]
fn an_output_other_than_the_first_is_asked_for_again() {
    let source = operation(0, &[]);
    let step = operation(1, &[(Digest::of(&source), 0)]);
    let name = Digest::of(&step);
    let top = operation(2, &[(name, 3)]);
    let result = Digest::of(&top);
    let cut = cut(
        &kept(&[definition(&[source, step, top], result)]),
        &[name].into(),
    );
    let cut = pb::Definition::decode(cut.unwrap().definition.as_slice()).unwrap();
    let last = pb::Op::decode(cut.def.last().unwrap().clone()).unwrap();
    assert_eq!(last.inputs[0].index, 3);
}

#[test]
fn all_that_stands_on_a_clients_files_is_renamed_with_them() {
    let (mut files, mut source) = (Vec::new(), Vec::new());
    put_field(&mut source, 1, b"local://context");
    put_field(&mut files, 3, &source);
    let image = operation(0, &[]);
    let (files_name, image_name) = (Digest::of(&files), Digest::of(&image));
    let copy = operation(1, &[(image_name, 0), (files_name, 0)]);
    let run = operation(2, &[(Digest::of(&copy), 0)]);
    let other = operation(3, &[(image_name, 0)]);
    let end = operation(4, &[(Digest::of(&run), 0), (Digest::of(&other), 0)]);
    let result = Digest::of(&end);
    let all = [files, image, copy, run, other, end];
    let names: Vec<Digest> = all.iter().map(|bytes| Digest::of(bytes)).collect();
    let succeeded = some(&names, &[2, 3, 4]);
    let cut = cut(&kept(&[definition(&all, result)]), &succeeded).unwrap();
    let now = kept_by(&cut);
    assert_eq!((cut.steps, cut.ends, now.len()), (3, 2, 5));
    let before: HashSet<Digest> = names.iter().copied().collect();
    let same: HashSet<Digest> = now.intersection(&before).copied().collect();
    assert_eq!(same, some(&names, &[1, 4]));
    load(&cut.definition);
}

#[test]
fn the_frontends_word_on_exports_stays_and_its_wish_for_no_cache_goes() {
    let (names, mut definition) = graph(&[vec![], vec![0], vec![1]]);
    let export_cache = Some(pb::ExportCache { value: false });
    let metadata = pb::OpMetadata { export_cache };
    definition.metadata = [(names[1].to_string(), metadata)].into();
    let mut bytes = definition.encode_to_vec();
    // ignore_cache=true, for the source.
    let (mut ignore, mut entry) = (Vec::new(), Vec::new());
    ignore.extend([0x08, 1]);
    put_field(&mut entry, 1, names[0].to_string().as_bytes());
    put_field(&mut entry, 2, &ignore);
    put_field(&mut bytes, 2, &entry);
    let mut kept = Definitions::default();
    kept.add(&bytes, &Room::default()).unwrap();
    let cut = cut(&kept, &some(&names, &[1])).unwrap();
    let cut = pb::Definition::decode(cut.definition.as_slice()).unwrap();
    assert_eq!(cut.metadata.len(), 1);
    assert_eq!(cut.metadata[&names[1].to_string()], metadata);
}

#[test]
fn what_stands_on_something_missing_or_unreadable_is_left_out() {
    let (missing, source) = (Digest::of(b"missing"), operation(0, &[]));
    let unreadable = b"\xff\xff".to_vec();
    let on = |at, below: &[u8]| operation(at, &[(Digest::of(below), 0)]);
    let lost = operation(1, &[(missing, 0)]);
    let above_lost = on(2, &lost);
    let above_unreadable = on(3, &unreadable);
    let negative = operation(4, &[(Digest::of(&source), -1)]);
    let sound = on(5, &source);
    let all = [
        source,
        unreadable,
        lost,
        above_lost,
        above_unreadable,
        negative,
        sound.clone(),
    ];
    let names: HashSet<Digest> = all.iter().map(|bytes| Digest::of(bytes)).collect();
    let mut definitions = kept(&[definition(&all, Digest::of(&sound))]);
    let ask = names.iter().map(|name| (*name, 0));
    definitions.results.extend(ask);
    let cut = cut(&definitions, &names).unwrap();
    assert_eq!(cut.ends, 1);
    let kept = kept_by(&cut);
    assert!(kept.contains(&Digest::of(&sound)) && kept.len() == 2);
}

#[test]
fn deep_and_wide_graphs_are_cut_without_recursion() {
    let deep: Vec<Vec<usize>> = (0..20_000_usize)
        .map(|at| at.checked_sub(1).into_iter().collect())
        .collect();
    let (names, definition) = graph(&deep);
    let succeeded = names[..names.len() - 1].iter().copied().collect();
    let deep = cut(&kept(&[definition]), &succeeded).unwrap();
    assert_eq!((deep.steps, deep.ends), (names.len() - 2, 1));

    let mut wide: Vec<Vec<usize>> = vec![vec![]];
    wide.extend((0..10_000).map(|_| vec![0]));
    wide.push((1..=10_000).collect());
    let (names, definition) = graph(&wide);
    let succeeded = names[..names.len() - 1].iter().copied().collect();
    let wide = cut(&kept(&[definition]), &succeeded).unwrap();
    assert_eq!((wide.steps, wide.ends), (MAX_ENDS, MAX_ENDS));
    load(&wide.definition);
}

/// Any graph without loops, and what succeeded of it.
fn any_graph() -> impl Strategy<Value = (Vec<Vec<usize>>, Vec<bool>)> {
    (1_usize..30).prop_flat_map(|count| {
        let parents =
            (0..count).map(|at| proptest::collection::vec(0..at.max(1), 0..4_usize.min(at + 1)));
        let parents: Vec<_> = parents.collect();
        (parents, proptest::collection::vec(any::<bool>(), count))
    })
}

proptest! {
    #[test]
    fn a_cut_is_whole_and_holds_every_step_that_succeeded((parents, done) in any_graph()) {
        let parents: Vec<Vec<usize>> = parents
            .into_iter()
            .enumerate()
            .map(|(at, parents)| parents.into_iter().filter(|&parent| parent < at).collect())
            .collect();
        let (names, definition) = graph(&parents);
        let succeeded: HashSet<Digest> =
            (0..names.len()).filter(|&at| done[at]).map(|at| names[at]).collect();
        let mut kept = kept(&[definition]);
        // Everything is asked for.
        kept.results.extend(names.iter().map(|name| (*name, 0)));
        let steps: HashSet<Digest> = (0..names.len())
            .filter(|&at| done[at] && !parents[at].is_empty())
            .map(|at| names[at])
            .collect();
        match cut(&kept, &succeeded) {
            None => prop_assert!(steps.is_empty()),
            Some(cut) => {
                let (operations, _) = load(&cut.definition);
                prop_assert!(steps.is_subset(&kept_by(&cut)));
                prop_assert_eq!(steps.len(), cut.steps);
                let mut again = Definitions::default();
                again.add(&cut.definition, &Room::default()).unwrap();
                prop_assert_eq!(again.operations.len() + 1, operations.len());
            }
        }
    }

    #[test]
    fn any_bytes_are_kept_and_cut_or_refused(
        bytes in any::<Vec<u8>>(),
        operations in proptest::collection::vec(any::<Vec<u8>>(), 0..8),
    ) {
        let mut kept = Definitions::default();
        let _ = kept.add(&bytes, &Room::default());
        let names: HashSet<Digest> = operations.iter().map(|bytes| Digest::of(bytes)).collect();
        let definition = pb::Definition {
            def: operations.into_iter().map(Bytes::from).collect(),
            ..pb::Definition::default()
        };
        let _ = kept.add(&definition.encode_to_vec(), &Room::default());
        kept.results.extend(names.iter().map(|name| (*name, 0)));
        if let Some(cut) = cut(&kept, &names) {
            load(&cut.definition);
        }
    }
}
