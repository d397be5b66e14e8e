//! `loopd keys`: the master key of the vaults.
//!
//! Rotating it needs the data directory to itself: a server that runs has the old key in its hands, and would go on wrapping
//! with it.

use crate::args::{KeysCommand, Place};
use crate::compose;
use crate::data::DataDir;
use crate::exit::Exit;
use crate::master_key::KEY_NEXT;
use crate::settings::{Settings, process_env};
use anyhow::{Context, Result, bail};
use loopd_broker::vault::{Finish, KeyPlace, Kms, rotate, wanted_keys};
use std::io::Write;

pub async fn run(place: &Place, command: &KeysCommand) -> Result<Exit> {
    match command {
        KeysCommand::RotateMaster => rotate_master(place).await,
    }
}

async fn rotate_master(place: &Place) -> Result<Exit> {
    let settings = Settings::resolve(place, &process_env)?;
    let data = DataDir::open(&settings.data)?;
    let source = settings.master_key(&process_env, data.path())?;
    if let (KeyPlace::Given { name, .. }, None) = (&source.place, &source.next) {
        bail!(
            "the master key is in {name}; give the new one in {KEY_NEXT} (32 random bytes in base64, as `openssl rand -base64 32` \
             writes them)"
        );
    }
    let store = compose::store(&data)?;
    let wanted = wanted_keys(store.as_ref()).await.context("the store cannot be read")?;
    if wanted.is_empty() {
        bail!("there is no secret in the store yet: nothing to rotate");
    }
    let kms = source.load_next(&wanted)?;
    let done = rotate(store.as_ref(), &kms).await?;
    let finish = source
        .finish()
        .context("all keys are wrapped anew, and the new master key could not take its place; run this again")?;
    let mut out = std::io::stdout();
    writeln!(out, "{done} data keys are under master key {} now", kms.key_id())?;
    match finish {
        Finish::Done { previous } => writeln!(
            out,
            "the key before is kept in {}; copies of the store that were made before need it",
            previous.display()
        )?,
        Finish::ByHand { set, from } => {
            writeln!(out, "set {set} to what {from} is before loopd is started again, and unset {from}")?;
        }
        Finish::Replace { path, from } => {
            writeln!(
                out,
                "put what {from} is into {} before loopd is started again, and unset {from}",
                path.display()
            )?;
        }
    }
    Ok(Exit::Success)
}
