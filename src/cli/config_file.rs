//! `--config layerd.toml`: options from a file.
//!
//! Every key is the long name of an option of the command that runs. What the
//! file says is given to clap as if it stood on the command line, unless the
//! command line or the environment says it already: so there is one parser, and
//! one place where each option is described. A command that is run now and then
//! may name the file of a daemon: keys that are the daemon's own are passed over,
//! as are the tables that a hub reads itself.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command, Error};
use toml::Value;

/// The option of a daemon that names the file.
#[derive(Debug, Args)]
pub(super) struct ConfigArgs {
    /// A TOML file with these options as keys: `data-dir = "/cache"`. Of a hub,
    /// its tables [[issuer]] and [[rule]] say which identities of a CI get which
    /// tokens.
    #[arg(long = CONFIG, env = "LAYERD_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

impl ConfigArgs {
    /// The file, where there is one.
    pub(super) fn path(&self) -> Option<&Path> {
        self.config.as_deref()
    }
}

/// Its name.
const CONFIG: &str = "config";

/// Options that only the command line can say.
const NO_KEYS: [&str; 2] = [CONFIG, "help"];

/// Tables of a hub's file that are no options.
const TABLES: [&str; 2] = ["issuer", "rule"];

/// Parses `args`, and with them the file that they name, if they name one.
pub fn matches(command: Command, args: Vec<OsString>) -> Result<ArgMatches, Error> {
    let (matches, lacking) = match command.clone().try_get_matches_from(&args) {
        Ok(matches) => (matches, None),
        // What is missing may be in the file.
        Err(lacking) if lacking.kind() == ErrorKind::MissingRequiredArgument => {
            let lenient = command.clone().ignore_errors(true);
            (lenient.try_get_matches_from(&args)?, Some(lacking))
        }
        Err(error) => return Err(error),
    };
    let mut described = command.clone();
    described.build();
    // The command that runs may be one of another: `token mint`.
    let (mut given, mut options, mut names) = (&matches, &described, Vec::new());
    while let Some((name, inner)) = given.subcommand()
        && let Some(found) = options.find_subcommand(name)
    {
        (given, options) = (inner, found);
        names.push(name);
    }
    // A command without the option has no such id.
    let Ok(Some(path)) = given.try_get_one::<PathBuf>(CONFIG) else {
        return lacking.map_or(Ok(matches), Err);
    };
    let file = read(path).map_err(|why| command.clone().error(ErrorKind::Io, why))?;
    let mut extra = Vec::new();
    for (key, value) in file {
        if TABLES.contains(&key.as_str()) && (names == ["serve"] || names.len() > 1) {
            continue;
        }
        let mistake = |why: String| {
            command.clone().error(
                ErrorKind::InvalidValue,
                format!("{}: {why}", path.display()),
            )
        };
        let known = || {
            options
                .get_arguments()
                .filter_map(|arg| Some((arg.get_long()?, arg)))
                .filter(|(long, _)| !NO_KEYS.contains(long))
        };
        let Some((_, option)) = known().find(|(long, _)| *long == key) else {
            // It reads the file of a daemon, which knows this one.
            if names.len() > 1 && has(&described, &key) {
                continue;
            }
            let known: Vec<_> = known().map(|(long, _)| long).collect();
            return Err(mistake(format!(
                "unknown key {key:?}; known are {}",
                known.join(", ")
            )));
        };
        let said = matches!(
            given.value_source(option.get_id().as_str()),
            Some(ValueSource::CommandLine | ValueSource::EnvVariable)
        );
        for value in texts(value).ok_or_else(|| {
            mistake(format!(
                "{key} must be a text, a number, true or false, or a list of them"
            ))
        })? {
            if !said {
                extra.push(OsString::from(format!("--{key}={value}")));
            }
        }
    }
    // Right behind the name of the command, before anything that may end the
    // options.
    let behind = |at: usize, name: &str| {
        let found = args[at..].iter().position(|arg| arg == name);
        found.map_or(args.len(), |further| at + further + 1)
    };
    let at = names.into_iter().fold(0, behind);
    let args: Vec<OsString> = args[..at]
        .iter()
        .cloned()
        .chain(extra)
        .chain(args[at..].iter().cloned())
        .collect();
    command.try_get_matches_from(args)
}

/// Whether a command, or one below it, has an option of that name.
fn has(command: &Command, long: &str) -> bool {
    let own = command
        .get_arguments()
        .any(|arg| arg.get_long() == Some(long));
    own || command.get_subcommands().any(|inner| has(inner, long))
}

fn read(path: &Path) -> Result<toml::Table, String> {
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    // What is around the mistake may be secret, and is not shown.
    text.parse().map_err(|error: toml::de::Error| {
        let before = error.span().and_then(|span| text.get(..span.start));
        let line = before.map_or(1, |before| before.matches('\n').count() + 1);
        format!("{}: line {line}: {}", path.display(), error.message())
    })
}

fn texts(value: Value) -> Option<Vec<String>> {
    match value {
        Value::String(text) => Some(vec![text]),
        Value::Integer(number) => Some(vec![number.to_string()]),
        Value::Boolean(yes) => Some(vec![yes.to_string()]),
        Value::Array(values) => {
            let each: Option<Vec<_>> = values.into_iter().map(texts).collect();
            each.map(|texts| texts.concat())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use clap::{Arg, ArgAction, value_parser};

    use super::*;

    fn command() -> Command {
        Command::new("layerd").subcommand(
            Command::new("sidecar")
                .arg(
                    Arg::new("config")
                        .long("config")
                        .value_parser(value_parser!(std::path::PathBuf)),
                )
                .arg(Arg::new("listen").long("listen").action(ArgAction::Append))
                .arg(Arg::new("project").long("project").default_value("default")),
        )
    }

    fn parse(toml: &str, args: &[&str]) -> Result<(Vec<String>, String), Error> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("layerd.toml");
        std::fs::write(&path, toml).unwrap();
        let mut all: Vec<OsString> = ["layerd", "sidecar", "--config"]
            .map(OsString::from)
            .to_vec();
        all.push(path.into());
        all.extend(args.iter().map(OsString::from));
        let matches = matches(command(), all)?;
        let sidecar = matches.subcommand_matches("sidecar").unwrap();
        let listen = sidecar
            .get_many("listen")
            .unwrap_or_default()
            .cloned()
            .collect();
        Ok((
            listen,
            sidecar.get_one::<String>("project").unwrap().clone(),
        ))
    }

    #[test]
    fn the_file_says_what_the_command_line_does_not() {
        let toml = "project = 'file'\nlisten = ['unix:///a', 'unix:///b']";
        assert_eq!(
            parse(toml, &[]).unwrap(),
            (vec!["unix:///a".into(), "unix:///b".into()], "file".into())
        );
        let (listen, project) = parse(toml, &["--project", "flag"]).unwrap();
        assert_eq!((listen.len(), project.as_str()), (2, "flag"));
        assert_eq!(
            parse(toml, &["--listen", "unix:///c"]).unwrap().0,
            ["unix:///c"]
        );
    }

    #[test]
    fn a_command_below_another_takes_what_it_knows_of_a_daemons_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("layerd.toml");
        let mint = Command::new("mint")
            .arg(
                Arg::new("config")
                    .long("config")
                    .value_parser(value_parser!(std::path::PathBuf)),
            )
            .arg(Arg::new("key").long("key").required(true));
        let nested = command().subcommand(Command::new("token").subcommand(mint));
        let run = |toml: &str, key: &[&str]| {
            std::fs::write(&path, toml).unwrap();
            let words = [
                "layerd",
                "token",
                "mint",
                "--config",
                path.to_str().unwrap(),
            ];
            let words = words.iter().chain(key).map(OsString::from).collect();
            matches(nested.clone(), words)
        };
        let toml = "listen = 'unix:///a'\nkey = 'file'";
        for (typed, expected) in [(&[][..], "file"), (&["--key", "typed"], "typed")] {
            let matches = run(toml, typed).unwrap();
            let mint = matches.subcommand_matches("token").unwrap();
            let mint = mint.subcommand_matches("mint").unwrap();
            assert_eq!(mint.get_one::<String>("key").unwrap(), expected);
        }
        assert!(run("lisen = 'x'", &["--key", "typed"]).is_err());
        let missing = run("listen = 'x'", &[]).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::MissingRequiredArgument);
    }

    #[test]
    fn a_mistake_names_the_file_and_the_key() {
        let error = parse("projct = 'x'", &[]).unwrap_err().to_string();
        assert!(
            error.contains("layerd.toml") && error.contains("projct") && error.contains("project"),
            "{error}"
        );
        let (_, known) = error.split_once("known are ").unwrap();
        assert_eq!(known.lines().next().unwrap(), "listen, project");
        for key in NO_KEYS {
            let error = parse(&format!("{key} = 'x'"), &[]).unwrap_err();
            assert!(error.to_string().contains("unknown key"), "{error}");
        }
        assert!(
            parse("project = { a = 1 }", &[])
                .unwrap_err()
                .to_string()
                .contains("project")
        );
        let error = parse("project = 'x'\nlisten = \"u:hunter2@h", &[]).unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("line 2") && !error.contains("hunter2"),
            "{error}"
        );
    }
}
