//! A daemon as a child process: its log, its signals, its end.

use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use tokio::process::{Child, ChildStdout, Command};

use super::wait::DEADLINE;

/// How long a daemon may take to drain when its test is over.
const DRAIN: Duration = Duration::from_secs(3);

/// A child process whose standard error goes to a file. It is told to end when
/// dropped, and its log is printed when the test is failing.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`. Should this process die without unwinding, the kernel
    /// ends the child (`setpriv --pdeathsig`), so that nothing is left behind.
    pub fn spawn(name: &str, command: &std::process::Command, log: &Path) -> Self {
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .expect("a log file");
        let mut guarded = Command::new("setpriv");
        guarded
            .args(["--pdeathsig", "TERM", "--"])
            .arg(command.get_program())
            .args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => guarded.env(key, value),
                None => guarded.env_remove(key),
            };
        }
        let child = guarded
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(file)
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        Self {
            name: name.to_owned(),
            child,
            log: log.to_owned(),
        }
    }

    /// What it prints; can be taken once.
    pub fn stdout(&mut self) -> ChildStdout {
        self.child
            .stdout
            .take()
            .expect("standard output was not taken yet")
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Panics with the log if it has ended.
    pub fn assert_running(&mut self) {
        if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
            panic!("{} ended with {status}", self.name);
        }
    }

    /// Sends a signal by pid.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid() {
            kill_process(pid, signal).expect("a living child takes signals");
        }
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> ExitStatus {
        match tokio::time::timeout(DEADLINE, self.child.wait()).await {
            Ok(status) => status.expect("a child can be waited for"),
            Err(_) => panic!("{} does not end", self.name),
        }
    }

    /// SIGTERM, and its exit status.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.ended().await
    }

    /// SIGKILL: no warning, no clean-up.
    pub async fn kill(&mut self) {
        self.signal(Signal::KILL);
        let status = self.ended().await;
        assert_eq!(
            status.signal(),
            Some(Signal::KILL.as_raw()),
            "{} ended before it was killed",
            self.name
        );
    }

    /// The largest resident set that it ever had, in bytes.
    pub fn peak_memory(&self) -> u64 {
        let pid = self.pid().expect("it is running").as_raw_nonzero();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it is running");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .expect("a peak");
        let kib: u64 = line
            .trim()
            .trim_end_matches("kB")
            .trim()
            .parse()
            .expect("a number");
        kib * 1024
    }

    /// Its pid, until it has been waited for.
    pub fn pid(&self) -> Option<Pid> {
        self.child
            .id()
            .and_then(|id| Pid::from_raw(i32::try_from(id).expect("a pid")))
    }

    /// Waits without a runtime, for the drop.
    fn wait_blocking(&mut self, limit: Duration) {
        let Some(pid) = self.pid() else { return };
        let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else {
            return;
        };
        let limit = limit.try_into().expect("a short time");
        // A time-out or an error leaves the end to SIGKILL, through kill_on_drop.
        let _ = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit));
        let _ = self.child.try_wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal(Signal::TERM);
            self.wait_blocking(DRAIN);
        }
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(80).collect();
            eprintln!(
                "--- {} ({} lines of log, the last 80):",
                self.name,
                log.lines().count()
            );
            for line in tail.iter().rev() {
                eprintln!("{line}");
            }
        }
    }
}
