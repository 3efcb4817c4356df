//! The layering of `src/`, held: a layer uses only what is below it, and doors
//! never use each other.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// From the top down; a name on one line may use those on later lines only.
const LAYERS: [&str; 8] = [
    "cli", "doors", "cache", "access", "graph", "catalog", "blobs", "leaf",
];

/// Modules that anybody may use and that use no layer.
const LEAVES: [&str; 11] = [
    "digest",
    "moment",
    "place",
    "entry",
    "step",
    "config",
    "telemetry",
    "tls",
    "seats",
    "units",
    "watched",
];

fn rank(module: &str) -> Option<usize> {
    let layer = if LEAVES.contains(&module) {
        "leaf"
    } else {
        module
    };
    LAYERS.iter().position(|known| *known == layer)
}

/// Every Rust file below `folder`.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// The path of a file's module: `src/doors/buildkit/splice.rs` is
/// `doors::buildkit::splice`.
fn module_of(file: &Path, root: &Path) -> Vec<String> {
    let inside = file.strip_prefix(root).unwrap().with_extension("");
    let parts = inside.components();
    parts
        .map(|part| part.as_os_str().to_str().unwrap().to_owned())
        .collect()
}

/// The paths that a file names from the root of the crate: `crate::a::b` and
/// each branch of `crate::{a::b, c}`. Comments do not count.
fn uses(text: &str) -> Vec<Vec<String>> {
    let code: Vec<&str> = text
        .lines()
        .map(|line| line.split("//").next().unwrap_or(""))
        .collect();
    let code = code.join(" ");
    let mut found = Vec::new();
    for (at, root) in code.match_indices("crate::") {
        let rest = &code[at + root.len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut start = 0;
            for (index, letter) in group.char_indices() {
                match letter {
                    '{' => depth += 1,
                    '}' if depth > 0 => depth -= 1,
                    ',' | '}' if depth == 0 => {
                        found.push(path_at(group[start..index].trim()));
                        start = index + 1;
                        if letter == '}' {
                            break;
                        }
                    }
                    _ => {}
                }
            }
        } else {
            found.push(path_at(rest));
        }
    }
    found
}

/// The path that a text starts with.
fn path_at(text: &str) -> Vec<String> {
    let end = text
        .find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'))
        .unwrap_or(text.len());
    text[..end]
        .split("::")
        .filter(|part| !part.is_empty())
        .map(str::to_owned)
        .collect()
}

#[test]
fn a_layer_uses_only_what_is_below_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = BTreeMap::new();
    for file in sources(&root) {
        let module = module_of(&file, &root);
        let Some(own) = rank(&module[0]) else {
            continue;
        };
        for used in uses(&std::fs::read_to_string(&file).unwrap()) {
            let Some(name) = used.first() else { continue };
            let Some(other) = rank(name) else { continue };
            let itself = *name == module[0];
            let leaf_to_leaf = own == other && own == LAYERS.len() - 1;
            let another_door = itself
                && module[0] == "doors"
                && module.len() > 1
                && used.get(1).is_some_and(|door| *door != module[1]);
            if another_door || (!itself && !leaf_to_leaf && other <= own) {
                wrong.insert(file.clone(), used.join("::"));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "these name what stands above or beside them: {wrong:#?}"
    );
}

#[test]
fn every_module_has_its_place_in_the_layering() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let unknown: Vec<_> = sources(&root)
        .into_iter()
        .map(|file| module_of(&file, &root).swap_remove(0))
        .filter(|module| !["lib", "main"].contains(&module.as_str()) && rank(module).is_none())
        .collect();
    assert!(unknown.is_empty(), "no layer is known for {unknown:?}");
}

#[test]
fn no_file_holds_two_ideas() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    for folder in ["src", "integration"] {
        for file in sources(&manifest.join(folder)) {
            let lines = std::fs::read_to_string(&file).unwrap().lines().count();
            assert!(lines <= 500, "{} has {lines} lines", file.display());
            assert!(!file.ends_with("mod.rs"), "{}", file.display());
        }
    }
}

#[test]
fn groups_and_paths_are_both_read() {
    let text = "use crate::{blobs::{BlobStore, Ingest}, digest::Digest};\n// crate::cli\nlet x = crate::place::Place;";
    let found: Vec<_> = uses(text).into_iter().map(|path| path.join("::")).collect();
    assert_eq!(
        found,
        ["blobs::", "digest::Digest", "place::Place"].map(|p| p.trim_end_matches("::").to_owned())
    );
}
