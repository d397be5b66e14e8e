//! A place for rooms in a single tree, where a cgroup has processes or hands controllers down to children, and not both.

use super::files::Files;
use std::io;
use std::path::Path;

/// In a single tree, the child cgroup that a server moves into so that its own can have children.
pub(super) const LEAF: &str = "loopd-server";
/// How many of those that are in the way are named.
const NAMED: usize = 4;

/// Makes the directory in a single tree and hands the controllers down to it and to its rooms.
pub(super) fn open(
    files: &dyn Files,
    parent: &Path,
    name: &str,
    wanted: &[&'static str],
) -> io::Result<Vec<&'static str>> {
    let left = leave(files, parent)?;
    let enabled = hand_down(files, parent, wanted).inspect_err(|_| {
        if left {
            go_back(files, parent);
        }
    })?;
    let directory = parent.join(name);
    files.make(&directory)?;
    hand_down(files, &directory, &enabled).inspect_err(|_| {
        let _ = files.remove(&directory);
    })
}

/// Moves this process into a child of its own, if it is in this cgroup; answers whether it was.
///
/// That comes before anything is handed down. A cgroup with processes refuses to hand down `memory` and `io`, and does hand down
/// `pids` and `cpu`: from then on it is the root of a "threaded" tree, in which nothing can be limited and nobody can be moved.
fn leave(files: &dyn Files, cgroup: &Path) -> io::Result<bool> {
    let kind = match files.read(&cgroup.join("cgroup.type")) {
        Ok(kind) => kind,
        // The top of all has no type, and may have processes beside children.
        Err(absent) if absent.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(fault) => return Err(fault),
    };
    let kind = kind.trim();
    if kind != "domain" {
        return Err(io::Error::other(format!("its type is `{kind}`; only in a `domain` rooms can be limited")));
    }
    let own = std::process::id().to_string();
    let inside = |files: &dyn Files| files.read(&cgroup.join("cgroup.procs"));
    if !inside(files)?.lines().any(|process| process == own) {
        return alone(&inside(files)?).map(|()| false);
    }
    let leaf = cgroup.join(LEAF);
    match files.make(&leaf) {
        Err(fault) if fault.kind() != io::ErrorKind::AlreadyExists => return Err(fault),
        _ => {}
    }
    files.write(&leaf.join("cgroup.procs"), &own).inspect_err(|_| {
        let _ = files.remove(&leaf);
    })?;
    match inside(files).and_then(|others| alone(&others)) {
        Ok(()) => Ok(true),
        Err(fault) => {
            go_back(files, cgroup);
            Err(fault)
        }
    }
}

/// What cannot be undone is only a directory too many.
fn go_back(files: &dyn Files, cgroup: &Path) {
    let _ = files.write(&cgroup.join("cgroup.procs"), &std::process::id().to_string());
    let _ = files.remove(&cgroup.join(LEAF));
}

/// `processes`: those that are in a cgroup that is to have children.
fn alone(processes: &str) -> io::Result<()> {
    let others: Vec<&str> = processes.lines().collect();
    if others.is_empty() {
        return Ok(());
    }
    let (named, more) = others.split_at(others.len().min(NAMED));
    let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
    let told =
        format!("other processes are in it ({}{more}), and a cgroup has processes or children", named.join(", "));
    Err(io::Error::new(io::ErrorKind::ResourceBusy, told))
}

/// Enables what can be enabled for the children of a cgroup.
fn hand_down(files: &dyn Files, cgroup: &Path, wanted: &[&'static str]) -> io::Result<Vec<&'static str>> {
    let file = cgroup.join("cgroup.subtree_control");
    let mut last = None;
    // One by one: a line of which one word is refused is refused whole.
    for name in wanted {
        if let Err(fault) = files.write(&file, &format!("+{name}")) {
            last = Some(fault);
        }
    }
    let enabled = files.read(&file)?;
    let enabled: Vec<_> =
        wanted.iter().copied().filter(|name| enabled.split_ascii_whitespace().any(|have| have == *name)).collect();
    match (enabled.is_empty(), last) {
        (true, Some(fault)) => Err(fault),
        (true, None) => Err(io::Error::other("its controllers cannot be handed down")),
        _ => Ok(enabled),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::tree::CONTROLLERS;
    use super::*;
    use std::cell::RefCell;
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    /// Plays a kernel with a single tree: who is where, what is handed down, which files there are, and what was written in
    /// which order.
    pub(in super::super) struct Fake {
        pub top: PathBuf,
        pub state: RefCell<State>,
    }

    #[derive(Default)]
    pub(in super::super) struct State {
        /// Controllers of a cgroup, as its parent has handed them down, and those that it hands down itself.
        cgroups: BTreeMap<PathBuf, (Vec<String>, Vec<String>)>,
        /// Where this process is, and how many others are with it at the beginning.
        own: PathBuf,
        others: BTreeMap<PathBuf, usize>,
        /// Roots of threaded trees.
        threaded: Vec<PathBuf>,
        written: Vec<String>,
        pub values: BTreeMap<PathBuf, String>,
        /// Files that may not be written.
        closed: Vec<PathBuf>,
    }

    fn refuse(errno: rustix::io::Errno) -> io::Error {
        errno.into()
    }

    impl Fake {
        /// `own`: below the top; all between have handed everything down.
        pub fn new(own: &str, controllers: &[&str]) -> Self {
            let top = PathBuf::from("/c");
            let all: Vec<String> = controllers.iter().map(|name| (*name).to_owned()).collect();
            let mut state = State { own: top.join(own), ..State::default() };
            state.cgroups.insert(top.clone(), (all.clone(), Vec::new()));
            let mut path = top.clone();
            for part in Path::new(own) {
                state.cgroups.get_mut(&path).unwrap().1 = all.clone();
                path = path.join(part);
                state.cgroups.insert(path.clone(), (all.clone(), Vec::new()));
            }
            Fake { top, state: RefCell::new(state) }
        }

        fn open(&self, parent: &str) -> io::Result<Vec<&'static str>> {
            open(self, &self.top.join(parent), "loopd-1", &CONTROLLERS)
        }

        fn written(&self) -> Vec<String> {
            self.state.borrow().written.clone()
        }
    }

    impl State {
        fn is_busy(&self, cgroup: &Path) -> bool {
            self.own == cgroup || self.others.get(cgroup).is_some_and(|count| *count > 0)
        }

        fn is_threaded(&self, cgroup: &Path) -> bool {
            self.threaded.iter().any(|root| cgroup.starts_with(root))
        }
    }

    impl Files for Fake {
        fn make(&self, directory: &Path) -> io::Result<()> {
            let mut state = self.state.borrow_mut();
            if state.closed.iter().any(|path| path == directory) {
                return Err(refuse(rustix::io::Errno::ACCESS));
            }
            let handed = state.cgroups[directory.parent().unwrap()].1.clone();
            state.written.push(format!("mkdir {}", directory.display()));
            match state.cgroups.insert(directory.to_owned(), (handed, Vec::new())) {
                None => Ok(()),
                Some(_) => Err(refuse(rustix::io::Errno::EXIST)),
            }
        }

        fn remove(&self, directory: &Path) -> io::Result<()> {
            let mut state = self.state.borrow_mut();
            assert!(!state.is_busy(directory), "a cgroup with processes is not removed");
            state.written.push(format!("rmdir {}", directory.display()));
            state.cgroups.remove(directory).map(drop).ok_or_else(|| refuse(rustix::io::Errno::NOENT))
        }

        fn read(&self, file: &Path) -> io::Result<String> {
            let state = self.state.borrow();
            let (directory, name) = (file.parent().unwrap(), file.file_name().unwrap().to_str().unwrap());
            match name {
                "cgroup.subtree_control" => Ok(state.cgroups[directory].1.join(" ") + "\n"),
                "cgroup.controllers" => Ok(state.cgroups[directory].0.join(" ") + "\n"),
                "cgroup.type" if directory == self.top => Err(refuse(rustix::io::Errno::NOENT)),
                "cgroup.type" if state.is_threaded(directory) => Ok("domain threaded\n".to_owned()),
                "cgroup.type" => Ok("domain\n".to_owned()),
                "cgroup.procs" => {
                    let own = (state.own == directory).then(|| format!("{}\n", std::process::id()));
                    let others =
                        (0..state.others.get(directory).copied().unwrap_or(0)).map(|number| format!("{number}\n"));
                    Ok(own.into_iter().chain(others).collect())
                }
                _ => state.values.get(file).cloned().ok_or_else(|| refuse(rustix::io::Errno::NOENT)),
            }
        }

        fn write(&self, file: &Path, value: &str) -> io::Result<()> {
            let mut state = self.state.borrow_mut();
            let (directory, name) = (file.parent().unwrap(), file.file_name().unwrap().to_str().unwrap());
            state.written.push(format!("{value} > {}", file.strip_prefix(&self.top).unwrap().display()));
            if state.closed.iter().any(|path| path == file) {
                return Err(refuse(rustix::io::Errno::ACCESS));
            }
            match name {
                "cgroup.procs" => {
                    if directory != self.top && state.is_threaded(directory.parent().unwrap()) {
                        return Err(refuse(rustix::io::Errno::OPNOTSUPP));
                    }
                    // Processes only in a leaf.
                    if directory != self.top && !state.cgroups[directory].1.is_empty() {
                        return Err(refuse(rustix::io::Errno::BUSY));
                    }
                    state.own = directory.to_owned();
                    Ok(())
                }
                "cgroup.subtree_control" => {
                    let controller = value.strip_prefix('+').unwrap().to_owned();
                    let is_divided = ["pids", "cpu"].contains(&controller.as_str());
                    if directory != self.top && !is_divided && state.is_threaded(directory) {
                        return Err(refuse(rustix::io::Errno::OPNOTSUPP));
                    }
                    if directory != self.top && state.is_busy(directory) {
                        match is_divided {
                            true => state.threaded.push(directory.to_owned()),
                            false => return Err(refuse(rustix::io::Errno::BUSY)),
                        }
                    }
                    let (has, hands) = state.cgroups.get_mut(directory).unwrap();
                    if !has.contains(&controller) {
                        return Err(refuse(rustix::io::Errno::NOENT));
                    }
                    hands.push(controller);
                    Ok(())
                }
                _ => {
                    state.values.insert(file.to_owned(), value.to_owned());
                    Ok(())
                }
            }
        }
    }

    #[test]
    fn the_top_hands_down_although_there_are_processes_in_it() {
        let kernel = Fake::new("", &["memory", "pids", "cpu", "io"]);
        assert_eq!(kernel.open("").unwrap(), CONTROLLERS);
        let written = kernel.written();
        let expected = [
            "+memory > cgroup.subtree_control",
            "+pids > cgroup.subtree_control",
            "+cpu > cgroup.subtree_control",
            "+io > cgroup.subtree_control",
            "mkdir /c/loopd-1",
            "+memory > loopd-1/cgroup.subtree_control",
            "+pids > loopd-1/cgroup.subtree_control",
            "+cpu > loopd-1/cgroup.subtree_control",
            "+io > loopd-1/cgroup.subtree_control",
        ];
        assert_eq!(written, expected);
    }

    #[test]
    fn an_ordinary_user_moves_out_of_the_cgroup_that_was_given_over() {
        // As `systemd-run --user --scope -p Delegate=yes` does it, with the controllers that it hands to users.
        let kernel = Fake::new("user.slice/app.scope", &["memory", "pids", "cpu"]);
        assert_eq!(kernel.open("user.slice/app.scope").unwrap(), ["memory", "pids", "cpu"]);
        let scope = Path::new("/c/user.slice/app.scope");
        assert_eq!(kernel.state.borrow().own, scope.join(LEAF));
        let state = kernel.state.borrow();
        assert_eq!(state.cgroups[&scope.join("loopd-1")].1, ["memory", "pids", "cpu"], "handed down to rooms");
        // It moved before it handed anything down, and its own directory came last.
        let at = |text: &str| state.written.iter().position(|one| one.contains(text)).unwrap();
        let moved = at("loopd-server/cgroup.procs");
        let handed = at("> user.slice/app.scope/cgroup.subtree_control");
        assert!(at("mkdir /c/user.slice/app.scope/loopd-server") < moved);
        assert!(moved < handed && handed < at("mkdir /c/user.slice/app.scope/loopd-1"));
    }

    #[test]
    fn one_that_is_not_alone_goes_back_and_leaves_nothing() {
        let kernel = Fake::new("shared", &["memory", "pids"]);
        kernel.state.borrow_mut().others.insert("/c/shared".into(), 1);
        let fault = kernel.open("shared").unwrap_err();
        assert!(fault.to_string().contains("other processes are in it (0)"), "{fault}");
        let state = kernel.state.borrow();
        assert_eq!(state.own, Path::new("/c/shared"));
        assert_eq!(state.cgroups.keys().collect::<Vec<_>>(), [Path::new("/c"), Path::new("/c/shared")]);
    }

    #[test]
    fn one_that_has_others_and_no_server_is_left_alone() {
        let kernel = Fake::new("shared/own", &["memory", "pids"]);
        for (count, told) in [(2, "(0, 1)"), (7, "(0, 1, 2, 3 and 3 more)")] {
            kernel.state.borrow_mut().others.insert("/c/shared".into(), count);
            let fault = kernel.open("shared").unwrap_err();
            assert!(fault.to_string().contains(told), "{fault}");
        }
        assert_eq!(kernel.written(), [""; 0]);
    }

    #[test]
    fn one_that_it_cannot_move_within_is_left_as_it_was() {
        let kernel = Fake::new("half", &["memory"]);
        kernel.state.borrow_mut().closed = vec![Path::new("/c/half").join(LEAF).join("cgroup.procs")];
        assert_eq!(kernel.open("half").unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        let state = kernel.state.borrow();
        assert_eq!(state.cgroups.keys().collect::<Vec<_>>(), [Path::new("/c"), Path::new("/c/half")]);
    }

    #[test]
    fn one_that_is_threaded_says_so() {
        let kernel = Fake::new("threads", &["pids", "cpu"]);
        kernel.state.borrow_mut().threaded.push("/c/threads".into());
        let fault = kernel.open("threads").unwrap_err();
        assert!(fault.to_string().contains("`domain threaded`"), "{fault}");
        assert_eq!(kernel.written(), [""; 0]);
    }

    #[test]
    fn one_that_may_not_write_says_so() {
        let kernel = Fake::new("foreign", &["memory"]);
        kernel.state.borrow_mut().closed =
            ["cgroup.subtree_control", LEAF].map(|name| Path::new("/c/foreign").join(name)).into();
        assert_eq!(kernel.open("foreign").unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(kernel.state.borrow().cgroups.len(), 2);
    }
}
