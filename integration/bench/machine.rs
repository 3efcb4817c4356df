//! When and on what a section was measured.

use std::process::Command;

use crate::harness::BuildKit;
use crate::harness::tools::pinned;

/// How busy the machine is: the processes that ran or waited in the last minute.
pub fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").expect("a Linux");
    text.split(' ').next().expect("a number").to_owned()
}

/// A line for the end of a section; `load` is that of before the run.
pub fn stamp(rounds: usize, load: &str) -> String {
    let options: Vec<String> = std::env::args()
        .skip(1)
        .filter(|o| o != "--bench")
        .collect();
    let command = ["integration/bench.sh".to_owned()]
        .into_iter()
        .chain(options);
    let command: Vec<String> = command.collect();
    format!(
        "Measured by `{}` on {}; rounds: {rounds}; {} cores, {:.0} GB of memory, Linux {}, \
         load {load} before; BuildKit {}, buildx {}, docker-registry {}, versitygw {}.",
        command.join(" "),
        jiff::Zoned::now().date(),
        std::thread::available_parallelism().map_or(1, usize::from),
        memory(),
        first_line("uname", &["-r"]),
        BuildKit::Current.version(),
        pinned("BUILDX_VERSION"),
        registry(),
        pinned("VERSITYGW_VERSION"),
    )
}

/// Gigabytes.
fn memory() -> f64 {
    let table = std::fs::read_to_string("/proc/meminfo").expect("a Linux");
    let line = table
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line
        .and_then(|line| line.trim().strip_suffix(" kB"))
        .expect("a size");
    kib.parse::<f64>().expect("a number") * 1024.0 / 1e9
}

/// `docker-registry --version` says `docker-registry <module> <version>`.
fn registry() -> String {
    let line = first_line("docker-registry", &["--version"]);
    line.split(' ').next_back().expect("a word").to_owned()
}

fn first_line(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output.expect("it runs").stdout;
    let text = String::from_utf8_lossy(&text);
    text.lines().next().unwrap_or_default().trim().to_owned()
}
