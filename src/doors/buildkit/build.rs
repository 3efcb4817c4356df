//! One build, as long as it runs: what is served to it, and what it is told.
//!
//! A build is known by `SolveRequest.Ref`; its Solve, its Status streams and
//! its gateway calls all name it, in any order, on any connection. Whoever
//! holds the [`Build`] keeps it known; when the last call ends it is forgotten.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use tokio::sync::{OnceCell, watch};
use tonic::Status;
use tracing::Span;

use super::metrics::Fate;
use super::proto::control;
use super::rescue::Standby;
use super::saved::Account;
use super::served::ServedImport;
use super::timeline::Timeline;
use super::vertices::Vertices;
use crate::digest::Digest;
use crate::graph::Vertex;
use crate::moment::Moment;
use crate::step::StepName;
use crate::telemetry::metrics::CounterBy;

/// Notices beyond this many are only logged: one build is not made to scroll.
const MAX_NOTICES: usize = 100;

/// How long a refused build stays known.
const REFUSED: Duration = Duration::from_secs(10);

/// Every build that runs now.
#[derive(Default)]
pub struct Builds {
    running: Mutex<HashMap<String, Weak<Build>>>,
    vertices: CounterBy<Fate>,
}

impl Builds {
    /// None yet; the steps of each will be counted in `vertices`.
    pub fn new(vertices: CounterBy<Fate>) -> Self {
        Self {
            running: Mutex::default(),
            vertices,
        }
    }

    /// The build of that id; the first to ask makes it known.
    pub fn join(&self, id: &str) -> Arc<Build> {
        let mut running = lock(&self.running);
        if let Some(build) = running.get(id).and_then(Weak::upgrade) {
            return build;
        }
        running.retain(|_, build| build.strong_count() > 0);
        let build = Arc::new(Build::new(id, self.vertices.clone()));
        running.insert(id.to_owned(), Arc::downgrade(&build));
        build
    }

    /// Ends a build that goes no further, and keeps it known for as long as
    /// other calls of it may be under way, so that they end with it.
    pub fn refuse(&self, build: Arc<Build>, why: Status) {
        build.set_stage(Stage::Refused(why));
        tokio::spawn(async move {
            tokio::time::sleep(REFUSED).await;
            drop(build);
        });
    }
}

/// The builds that share something, and are told how it does.
#[derive(Clone, Default)]
pub struct Audience(Arc<Mutex<Vec<Weak<Build>>>>);

impl Audience {
    /// From now on, `build` is told too.
    pub fn admit(&self, build: &Arc<Build>) {
        let mut builds = lock(&self.0);
        builds.retain(|build| build.strong_count() > 0);
        builds.push(Arc::downgrade(build));
    }

    /// The span of the first that still runs: what is done once for all of them
    /// happens in there.
    pub fn span(&self) -> Span {
        let builds = lock(&self.0).clone();
        let running = builds.iter().find_map(Weak::upgrade);
        running.map_or_else(Span::none, |build| build.span().clone())
    }

    /// Tells each that still runs. The lock is not held: the last to hold a
    /// build ends it.
    pub fn each(&self, tell: impl Fn(&Build)) {
        let builds = lock(&self.0).clone();
        builds
            .iter()
            .filter_map(Weak::upgrade)
            .for_each(|build| tell(&build));
    }
}

/// What is known about one build.
pub struct Build {
    /// `SolveRequest.Ref`.
    pub id: String,
    /// When it was first heard of.
    pub began: Moment,
    /// What its imports became; decided once, by the first call that has any,
    /// since BuildKit loses hits at random as soon as it has two.
    pub import: OnceCell<Option<Arc<ServedImport>>>,
    /// What is needed of it should it fail.
    pub standby: Standby,
    /// What its imports save it.
    pub account: Account,
    /// How long it has waited to be planned.
    pub waited: OnceLock<Duration>,
    span: Span,
    notices: Mutex<Vec<Notice>>,
    told: watch::Sender<usize>,
    stage: watch::Sender<Stage>,
    titles: Mutex<HashMap<String, String>>,
    vertices: Mutex<Vertices>,
    timeline: Mutex<Timeline>,
    seen: watch::Sender<()>,
    counter: CounterBy<Fate>,
    imported: AtomicBool,
}

/// How far the Solve of a build is.
#[derive(Clone, Debug)]
pub enum Stage {
    /// It has not come, or is being planned.
    Unknown,
    /// buildkitd has it.
    Forwarded,
    /// It went no further.
    Refused(Status),
}

/// One thing that the user is told.
#[derive(Clone, Debug)]
pub struct Notice {
    /// A sentence.
    pub text: String,
    /// What belongs to it, line by line.
    pub details: Vec<String>,
    /// Something is not as the user asked.
    pub warning: bool,
    /// When it was said.
    pub at: SystemTime,
}

impl Build {
    fn new(id: &str, counter: CounterBy<Fate>) -> Self {
        Self {
            id: id.to_owned(),
            began: Moment::now(),
            import: OnceCell::new(),
            standby: Standby::default(),
            account: Account::default(),
            waited: OnceLock::new(),
            // At the level of errors, so that no filter takes a line's build
            // away from it.
            span: tracing::error_span!(parent: None, "build", id),
            notices: Mutex::default(),
            told: watch::Sender::new(0),
            stage: watch::Sender::new(Stage::Unknown),
            titles: Mutex::default(),
            vertices: Mutex::default(),
            timeline: Mutex::default(),
            seen: watch::Sender::new(()),
            counter,
            imported: AtomicBool::new(false),
        }
    }

    /// What is done for this build happens in here, and so do its log lines.
    pub fn span(&self) -> &Span {
        &self.span
    }

    /// Tells the user, in the build's progress, how something went.
    pub fn tell(&self, text: impl Into<String>) {
        self.tell_all(text, Vec::new());
    }

    /// The same, with lines that belong to it.
    pub fn tell_all(&self, text: impl Into<String>, details: Vec<String>) {
        let text = text.into();
        tracing::info!(parent: &self.span, "{text}");
        self.say(text, details, false);
    }

    /// Tells the user, in the build's progress, what is not as they asked. The
    /// same words are said once.
    pub fn warn(&self, text: impl Into<String>) {
        let text = text.into();
        tracing::warn!(parent: &self.span, "{text}");
        self.say(text, Vec::new(), true);
    }

    fn say(&self, text: String, details: Vec<String>, warning: bool) {
        let mut notices = lock(&self.notices);
        if notices.len() < MAX_NOTICES && !notices.iter().any(|notice| notice.text == text) {
            notices.push(Notice {
                text,
                details,
                warning,
                at: SystemTime::now(),
            });
            self.told.send_replace(notices.len());
        }
    }

    /// The notices from number `from` on.
    pub fn notices(&self, from: usize) -> Vec<Notice> {
        lock(&self.notices).get(from..).unwrap_or_default().to_vec()
    }

    /// Changes whenever a notice is added.
    pub fn told(&self) -> watch::Receiver<usize> {
        self.told.subscribe()
    }

    /// Says how far this build's Solve is.
    pub fn set_stage(&self, stage: Stage) {
        self.stage.send_replace(stage);
    }

    /// Waits until buildkitd has this build's Solve: it gives up on gateway
    /// calls for a build that it doesn't hear of within three seconds. An error
    /// says why it will never have it.
    pub async fn forwarded(&self, patience: Duration) -> Result<(), Status> {
        let settled = self.settled(|stage| !matches!(stage, Stage::Unknown));
        match tokio::time::timeout(patience, settled).await {
            Ok(Stage::Refused(why)) => Err(why),
            // Past our patience the call goes on, and buildkitd has its own.
            _ => Ok(()),
        }
    }

    /// Resolves when this build's Solve is refused.
    pub async fn refused(&self) {
        self.settled(|stage| matches!(stage, Stage::Refused(_)))
            .await;
    }

    async fn settled(&self, at: impl FnMut(&Stage) -> bool) -> Stage {
        let mut stages = self.stage.subscribe();
        // An error would mean that the sender is gone, and that is ours.
        let settled = stages.wait_for(at).await.map(|stage| stage.clone());
        settled.unwrap_or(Stage::Unknown)
    }

    /// What the vertices of its exports are to be called, by their digest.
    pub fn titles(&self) -> MutexGuard<'_, HashMap<String, String>> {
        lock(&self.titles)
    }

    /// Takes in events of its progress, in their order.
    pub fn see(&self, events: &[control::Vertex]) {
        let (mut vertices, mut timeline) = (lock(&self.vertices), lock(&self.timeline));
        for event in events {
            vertices.see(event);
            timeline.see(event);
        }
        drop((vertices, timeline));
        self.seen.send_replace(());
    }

    /// Its import was asked for; true the first time.
    pub fn has_imported(&self) -> bool {
        !self.imported.swap(true, Ordering::Relaxed)
    }

    /// The steps whose result is there, as far as is known.
    pub fn succeeded(&self) -> HashSet<Digest> {
        lock(&self.vertices).succeeded()
    }

    /// Its progress is over: what is exported from now on was made before.
    pub fn end_progress(&self) {
        lock(&self.timeline).end();
    }

    /// Whether buildkitd has it from here, as far as is known.
    pub fn is_forwarded(&self) -> bool {
        matches!(*self.stage.borrow(), Stage::Forwarded)
    }

    /// What became of its steps so far, and what each is called, unless there
    /// were too many.
    pub fn steps(&self) -> Vec<(Fate, Option<StepName>)> {
        let (vertices, timeline) = (lock(&self.vertices), lock(&self.timeline));
        let steps = vertices.fates();
        steps
            .map(|(digest, fate)| (fate, timeline.name(digest).cloned()))
            .collect()
    }

    /// All of its vertices before `vertex` began, once it has: what was known
    /// earlier may lack some. None where nobody watches the build, or whoever
    /// does is late by more than `patience`.
    pub async fn vertices_before(&self, vertex: &Digest, patience: Duration) -> Vec<Vertex> {
        let mut seen = self.seen.subscribe();
        let known = async {
            loop {
                {
                    let timeline = lock(&self.timeline);
                    if timeline.is_empty() || timeline.has_begun(vertex) {
                        return timeline.vertices();
                    }
                }
                if seen.changed().await.is_err() {
                    return Vec::new();
                }
            }
        };
        tokio::time::timeout(patience, known)
            .await
            .unwrap_or_default()
    }
}

impl Drop for Build {
    fn drop(&mut self) {
        // The progress of a build can be asked for long after its end, and of
        // one that did not come through here: neither counts.
        if self.is_forwarded() {
            lock(&self.vertices).count(&self.counter);
        }
    }
}

/// The digest of the vertex under which buildkitd runs the cache export at
/// `index` of its list (BuildKit: `solver/llbsolver/export.go`).
pub fn export_vertex(session: &str, index: usize) -> Digest {
    Digest::of(format!("{session}-cache-{index}").as_bytes())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_is_known_while_somebody_holds_it() {
        let builds = Builds::default();
        let first = builds.join("a");
        first.tell("once");
        assert_eq!(builds.join("a").notices(0).len(), 1);
        drop(first);
        assert!(builds.join("a").notices(0).is_empty());
    }

    #[test]
    fn the_same_words_are_said_once_and_never_without_end() {
        let build = Builds::default().join("a");
        for n in 0..1000 {
            build.warn("same");
            build.warn(n.to_string());
        }
        assert_eq!(build.notices(0).len(), MAX_NOTICES);
        assert_eq!(
            build
                .notices(0)
                .iter()
                .filter(|notice| notice.text == "same")
                .count(),
            1
        );
    }
}
