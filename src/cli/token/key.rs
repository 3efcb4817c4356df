//! `layerd token key`: a new key.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, anyhow, bail};
use clap::Args;

use super::display::print;
use crate::access::{Algorithm, KeyPair, kid_of};

/// Make a key that tokens are signed with, and print its name.
///
/// A key is named after its file, without the extension, and tokens say by that
/// name which key signed them: so it has the same name wherever it lies. Only
/// whoever makes tokens needs it. A hub that merely checks them does with the
/// public half, which only ed25519 has.
///
/// To change keys, put the new one beside the old one in the folder that every
/// hub reads, let mint use it, and take the old one away when the last token of
/// its time has expired.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  layerd token key -o /etc/layerd/keys/2026.pem
  layerd token key -o ci.pem --public ci.pub      # ci.pub is for the hubs
  layerd token key -o shared.key --algorithm hs256")]
pub(super) struct KeyArgs {
    /// Where to write it, readable for this user alone. A file that is there
    /// already is left as it is.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,

    /// ed25519, or hs256: a secret that hubs have as well.
    #[arg(
        long,
        env = "LAYERD_ALGORITHM",
        value_name = "ALGORITHM",
        default_value_t
    )]
    algorithm: Algorithm,

    /// Where to write the public half; its name must be the same but for the
    /// extension.
    #[arg(long, value_name = "FILE")]
    public: Option<PathBuf>,
}

pub(super) fn run(args: &KeyArgs) -> anyhow::Result<ExitCode> {
    let kid = kid_of(&args.output)?;
    let pair = KeyPair::generate(args.algorithm).map_err(|why| anyhow!(why))?;
    let public = match (&args.public, &pair.public) {
        (None, _) => None,
        (Some(_), None) => bail!("{} has no public half: leave --public out", args.algorithm),
        (Some(path), Some(_)) if kid_of(path)? != kid => bail!(
            "{} would be a key of another name than {kid}: only the extension may differ",
            path.display()
        ),
        (Some(path), Some(text)) => Some((path, text)),
    };
    write_new(&args.output, &pair.private, 0o600)?;
    if let Some((path, text)) = public
        && let Err(error) = write_new(path, text, 0o644)
    {
        // Half a pair is of no use, and would be in the way next time.
        let _ = std::fs::remove_file(&args.output);
        return Err(error);
    }
    print(kid)?;
    Ok(ExitCode::SUCCESS)
}

fn write_new(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(mode);
    let written = options.open(path).and_then(|mut file: File| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.with_context(|| format!("can't write {}", path.display()))
}
