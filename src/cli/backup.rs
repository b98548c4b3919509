//! `lemnos backup` and `lemnos restore`: at the machine itself, by whoever may read the data directory.

use std::path::PathBuf;
use std::process::ExitCode;

use super::block_on;
use super::control::DataArgs;
use super::serve::find_git;
use super::terminal::{print_json, print_text};
use crate::backup::{self, Restored, Taken};
use crate::config::Environment;
use crate::error::{Kind, Report};

/// Copy the store and the repositories to a directory, also while the server runs.
#[derive(Debug, clap::Args)]
pub struct BackupArgs {
    /// Where to: a directory that is empty, not there, or holds an earlier backup, whose unchanged files are taken over.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Take along the SSH host keys and the key that opens the registry logins and apps' secrets.
    #[arg(long)]
    with_secrets: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DataArgs,
}

/// Make a data directory of a backup.
#[derive(Debug, clap::Args)]
pub struct RestoreArgs {
    /// The backup.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// The data directory to make: empty, or not there.
    #[arg(long = "data", value_name = "NEWDIR")]
    data_dir: PathBuf,
}

pub fn backup(args: BackupArgs) -> Result<ExitCode, Report> {
    let (data_dir, git) = (args.data.data_dir()?, git()?);
    let taken = block_on(async { Ok(backup::take(&data_dir, &args.dir, &git, args.with_secrets).await?) })?;
    if args.json {
        print_json(&taken)?
    } else {
        print_text(&taken_text(&taken))?
    }
    Ok(ExitCode::SUCCESS)
}

pub fn restore(args: RestoreArgs) -> Result<ExitCode, Report> {
    let git = git()?;
    let data_dir = std::path::absolute(&args.data_dir).map_err(|e| Report::user(format!("--data: {e}")))?;
    let restored = block_on(async { Ok(backup::restore(&args.dir, &data_dir, &git).await?) })?;
    if args.json {
        print_json(&restored)?
    } else {
        print_text(&restored_text(&restored))?
    }
    Ok(ExitCode::SUCCESS)
}

fn git() -> Result<PathBuf, Report> {
    find_git(&Environment::of_process()).ok_or_else(|| {
        Report::new(Kind::NotFound, "there is no git on PATH").hint("install the package git (2.38 or newer)")
    })
}

fn mib(bytes: u64) -> String {
    format!("{}.{} MiB", bytes >> 20, ((bytes >> 10) % 1024) * 10 / 1024)
}

fn taken_text(taken: &Taken) -> String {
    let volume = taken.volume;
    let reused = match volume.reused_files {
        0 => String::new(),
        files => format!(", {files} of them unchanged since the backup before"),
    };
    let mut text = format!(
        "Backed up {} apps to {}: {} files, {}{reused}\n",
        taken.apps,
        taken.dir.display(),
        volume.files,
        mib(volume.bytes)
    );
    if !taken.with_secrets {
        text.push_str("Left out: the SSH host keys and the key of registry logins and apps' secrets (--with-secrets takes them along)\n");
    }
    text.push_str("Images stay in their registry: back that up by its own means\n");
    text
}

fn restored_text(restored: &Restored) -> String {
    let dir = restored.data_dir.display();
    let mut text = format!(
        "Restored {} apps to {dir}: {} files, {}\n",
        restored.apps,
        restored.volume.files,
        mib(restored.volume.bytes)
    );
    if !restored.with_secrets {
        text.push_str(
            "The backup has no secrets: the server will make new SSH host keys, of which clients warn (`ssh-keygen -R HOST`),\n\
             and registry logins and apps' secrets cannot be opened: put secret.key back where you have it, or give each up and add it again\n\
             (`lemnos registry logout`, `lemnos registry login`; `lemnos secrets remove`, `lemnos secrets add`)\n",
        );
    }
    text.push_str(&format!("Start it: lemnos serve --data {dir}\n"));
    text
}
