//! Who the tools run as, where, and with which environment. Every tool process is born here.

use crate::sys;
use rustix::process::{Gid, Pid, Signal, Uid};
use std::ffi::{CString, OsString};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// The variable in which the launcher says who the tools run as.
pub const TOOL_UID: &str = "LOOPD_TOOL_UID";
const WORKSPACE: &str = "/workspace";
const OUTPUTS: &str = "/mnt/session/outputs";
/// What is never handed on: our own variables, and what would make a shell read files before its first command.
pub const WITHHELD: [&str; 6] =
    [TOOL_UID, loopd_protocol::ORPHAN_SECONDS, loopd_protocol::OUTLET, loopd_protocol::OUTLET_PORTS, "BASH_ENV", "ENV"];
const DEFAULTS: [(&str, &str); 3] =
    [("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"), ("LANG", "C.UTF-8"), ("TERM", "dumb")];

#[derive(Debug, thiserror::Error)]
pub enum ToolUserError {
    #[error("`{TOOL_UID}` is `{0}`; accepted: a user id from 1, or `same`")]
    Uid(String),
    #[error("the working directory: {0}")]
    Directory(#[from] io::Error),
}

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct ToolUser(Rc<Facts>);

#[derive(Debug)]
struct Facts {
    /// `None`: the cell's own, because it cannot change it.
    uid: Option<u32>,
    directory: PathBuf,
    spill_directory: PathBuf,
    environment: Vec<CString>,
}

impl ToolUser {
    /// From what this process was started with.
    pub fn from_environment(variables: Vec<(OsString, OsString)>) -> Result<Self, ToolUserError> {
        let setting = variables.iter().find(|(name, _)| name == TOOL_UID).map(|(_, value)| value.to_string_lossy());
        let setting = setting.unwrap_or_default();
        let uid = match (setting.as_ref(), setting.parse::<u32>()) {
            ("same", _) => None,
            (_, Ok(uid)) if uid > 0 => Some(uid),
            _ => return Err(ToolUserError::Uid(setting.into_owned())),
        };
        let directory = match Path::new(WORKSPACE).is_dir() {
            true => PathBuf::from(WORKSPACE),
            false => std::env::current_dir()?,
        };
        // Beside the session's outputs it outlives the room, as the text that names it does.
        let spill_directory = match Path::new(OUTPUTS).is_dir() {
            true => Path::new(OUTPUTS).join(".spill"),
            false => std::env::temp_dir().join("loopd"),
        };
        let environment = environment(variables, &directory);
        Ok(ToolUser(Rc::new(Facts { uid, directory, spill_directory, environment })))
    }

    /// Where relative paths start.
    pub fn directory(&self) -> &Path {
        &self.0.directory
    }

    pub fn spill_directory(&self) -> &Path {
        &self.0.spill_directory
    }

    pub fn environment(&self) -> &[CString] {
        &self.0.environment
    }

    /// Runs `f` with the file permissions of the tools.
    pub fn with_files<T>(&self, f: impl FnOnce() -> T) -> T {
        match self.0.uid {
            Some(uid) => sys::with_files_of(uid, f),
            None => f(),
        }
    }

    /// Starts a process of the tools in a session of its own. What it does is `f`; it ends when `f` does.
    pub fn start(&self, f: impl FnOnce() -> i32) -> io::Result<Pid> {
        if let Some(pid) = sys::fork()? {
            return Ok(pid);
        }
        // A panic must not unwind into the parent's event loop, of which this process has a copy.
        let work = std::panic::AssertUnwindSafe(|| match self.drop_rights() {
            Ok(()) => f(),
            Err(fault) => {
                eprintln!("a tool process could not drop its rights: {fault}");
                126
            }
        });
        sys::exit_child(std::panic::catch_unwind(work).unwrap_or(101))
    }

    fn drop_rights(&self) -> io::Result<()> {
        rustix::process::setsid()?;
        sys::default_signals();
        if let Some(uid) = self.0.uid {
            become_user(uid)?;
        }
        rustix::thread::set_no_new_privs(true)?;
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
        Ok(())
    }

    #[cfg(test)]
    pub fn for_test(directory: &Path) -> Self {
        let (directory, spill_directory) = (directory.to_owned(), directory.join("spill"));
        ToolUser(Rc::new(Facts { uid: None, directory, spill_directory, environment: Vec::new() }))
    }
}

/// Gives up root and, with it, every capability. There is no way back.
fn become_user(uid: u32) -> io::Result<()> {
    if !rustix::process::getgroups()?.is_empty() {
        rustix::thread::set_thread_groups(&[])?;
    }
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(uid));
    rustix::thread::set_thread_res_gid(group, group, group)?;
    rustix::thread::set_thread_res_uid(user, user, user)?;
    if rustix::process::getuid() != user || rustix::thread::set_thread_uid(Uid::ROOT).is_ok() {
        return Err(io::Error::other("the user id did not change"));
    }
    Ok(())
}

/// The variables of the tools, as `execve` wants them.
fn environment(variables: Vec<(OsString, OsString)>, directory: &Path) -> Vec<CString> {
    let mut wanted: Vec<(OsString, OsString)> =
        variables.into_iter().filter(|(name, _)| !WITHHELD.iter().any(|w| name == w)).collect();
    let home = ("HOME".into(), directory.as_os_str().to_owned());
    let defaults = DEFAULTS.map(|(name, value)| (name.into(), value.into()));
    for (name, value) in defaults.into_iter().chain([home]) {
        if !wanted.iter().any(|(known, _)| *known == name) {
            wanted.push((name, value));
        }
    }
    let entry = |(name, value): (OsString, OsString)| {
        let mut entry = name.into_vec();
        entry.push(b'=');
        entry.extend(value.into_vec());
        CString::new(entry).expect("a variable of a process contains no NUL")
    };
    wanted.into_iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(setting: &str) -> Result<ToolUser, ToolUserError> {
        ToolUser::from_environment(vec![(TOOL_UID.into(), setting.into()), ("A".into(), "b".into())])
    }

    #[test]
    fn the_setting_must_be_said() {
        assert!(with("same").is_ok());
        assert_eq!(with("1000").expect("a user").0.uid, Some(1000));
        for bad in ["", "0", "-1", "root"] {
            assert!(with(bad).is_err(), "`{bad}`");
        }
        assert!(ToolUser::from_environment(Vec::new()).is_err());
    }

    #[test]
    fn tools_do_not_see_our_variable() {
        let user = with("same").expect("a user");
        let text: Vec<_> = user.environment().iter().map(|e| e.to_string_lossy().into_owned()).collect();
        assert!(text.contains(&"A=b".to_owned()) && text.iter().any(|e| e.starts_with("PATH=/")));
        assert!(!text.iter().any(|e| e.contains("LOOPD")), "{text:?}");
    }
}
