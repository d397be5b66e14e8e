use super::*;
use crate::Channel;
use crate::files::TreeWriter;
use crate::port::{RoomExit, RoomGuard, RoomRoot, Unmetered, Walls};
use loopd_domain::Epoch;
use std::path::PathBuf;
use std::sync::Mutex;
use tokio::sync::watch;

/// A backend that says what it was asked for. A session's files are a file of its kind's name in the session's directory.
struct Told {
    isolation: Isolation,
    data: PathBuf,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Told {
    fn note(&self, what: &str) {
        self.asked.lock().expect("asked").push(format!("{} {what}", self.isolation.as_str()));
    }

    fn found(&self, session: &str, room: bool, layer: &str) -> Found {
        let session = SessionId::parse("session", session).expect("an id");
        Found { session, room, can_sleep: false, files: !room, layers: vec![PathBuf::from(layer)] }
    }
}

struct Still;

impl RoomGuard for Still {
    fn kill(&self) {}
    fn pid(&self) -> Option<u32> {
        None
    }
    fn leave(self: Box<Self>) {}
}

#[async_trait]
impl Sandbox for Told {
    fn kind(&self) -> &'static str {
        self.isolation.as_str()
    }

    async fn start(&self, _: &RoomSpec) -> Result<Room, SandboxError> {
        self.note("start");
        let (channel, _) = Channel::pair().expect("a pair");
        let (_, exit) = watch::channel(Some(RoomExit::Gone));
        let walls = Walls { isolation: self.isolation, accelerator: None };
        Ok(Room { walls, channel, outlet: None, exit, meter: Box::new(Unmetered), guard: Box::new(Still) })
    }

    async fn adopt(&self, _: &RoomSpec) -> Result<Option<Room>, SandboxError> {
        self.note("adopt");
        Ok(None)
    }

    async fn inventory(&self) -> Result<Vec<Found>, SandboxError> {
        Ok(match self.isolation {
            Isolation::Namespaces => vec![self.found("sesn_b", false, "/n"), self.found("sesn_a", true, "/n")],
            Isolation::Microvm => vec![self.found("sesn_b", true, "/m"), self.found("sesn_c", false, "/m")],
        })
    }

    fn keeps_files(&self, _: &RoomSpec) -> bool {
        self.data.join(self.isolation.as_str()).exists()
    }

    async fn remove(&self, _: &RoomSpec) -> Result<(), SandboxError> {
        self.note("remove");
        Ok(())
    }

    fn read_files(&self, _: &RoomSpec, _: &mut dyn FileSink) -> Result<FilesRead, SandboxError> {
        self.note("read");
        Ok(FilesRead::default())
    }

    fn write_files(&self, spec: &RoomSpec) -> Result<Box<dyn FileWriter>, SandboxError> {
        self.note("write");
        let fault = |source| SandboxError::Directory { path: spec.directory.clone(), source };
        Ok(Box::new(TreeWriter::new(&spec.directory, &[]).map_err(fault)?))
    }

    async fn probe(&self) -> Vec<Check> {
        let (detail, remedy) = ("tried".to_owned(), String::new());
        vec![Check { name: "launcher".to_owned(), verdict: CheckVerdict::Works, detail, remedy }]
    }
}

struct Trial {
    kinds: Kinds,
    data: tempfile::TempDir,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Trial {
    fn of(isolations: &[Isolation]) -> Self {
        let (data, asked) = (tempfile::tempdir().expect("a directory"), Arc::default());
        let backend = |isolation| -> Arc<dyn Sandbox> {
            Arc::new(Told { isolation, data: data.path().to_owned(), asked: Arc::clone(&asked) })
        };
        let kinds = isolations.iter().fold(Kinds::default(), |kinds, kind| kinds.with(*kind, backend(*kind)));
        Trial { kinds, data, asked }
    }

    fn spec(&self, isolation: Isolation) -> RoomSpec {
        let session = SessionId::parse("session", "sesn_a").expect("an id");
        RoomSpec { isolation, ..RoomSpec::plain(session, Epoch(1), self.data.path().join("files")) }
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().expect("asked"))
    }
}

struct Nowhere;

impl FileSink for Nowhere {
    fn put(&mut self, _: &crate::files::FileEntry, _: crate::files::Content<'_>) -> std::io::Result<()> {
        Ok(())
    }
}

fn refusal<T>(outcome: Result<T, SandboxError>) -> SandboxError {
    outcome.err().expect("refused")
}

#[tokio::test]
async fn a_spec_goes_to_its_kind() {
    let trial = Trial::of(&Isolation::ALL);
    for isolation in Isolation::ALL {
        let spec = trial.spec(isolation);
        let room = trial.kinds.start(&spec).await.expect("a room");
        assert_eq!(room.walls.isolation, isolation);
        assert!(trial.kinds.adopt(&spec).await.expect("looked for").is_none());
        trial.kinds.read_files(&spec, &mut Nowhere).expect("read");
        drop(trial.kinds.write_files(&spec).expect("a writer"));
        let kind = isolation.as_str();
        let wanted = ["start", "adopt", "read", "write"].map(|what| format!("{kind} {what}"));
        assert_eq!(trial.asked(), wanted);
        // Neither backend of this test can: the answer is its own.
        let fault = refusal(trial.kinds.suspend(&spec, room).await);
        assert!(matches!(fault, SandboxError::Unavailable { kind: told, .. } if told == kind), "{fault}");
    }
}

#[tokio::test]
async fn files_of_another_kind_are_neither_passed_over_nor_lost() {
    let trial = Trial::of(&Isolation::ALL);
    std::fs::write(trial.data.path().join("namespaces"), "").expect("files");
    let (theirs, wrong) = (trial.spec(Isolation::Namespaces), trial.spec(Isolation::Microvm));
    assert!(trial.kinds.keeps_files(&wrong));
    for fault in
        [refusal(trial.kinds.start(&wrong).await.map(drop)), refusal(trial.kinds.write_files(&wrong).map(drop))]
    {
        assert!(fault.is_permanent(), "{fault}");
        let told = fault.to_string();
        assert!(told.contains("kind `namespaces`") && told.contains("says `microvm`"), "{told}");
    }
    assert!(trial.asked().is_empty());
    trial.kinds.read_files(&wrong, &mut Nowhere).expect("read");
    trial.kinds.start(&theirs).await.expect("a room");
    assert_eq!(trial.asked(), ["namespaces read", "namespaces start"]);
}

#[tokio::test]
async fn whoever_removes_need_not_know_the_kind() {
    let trial = Trial::of(&Isolation::ALL);
    trial.kinds.remove(&trial.spec(Isolation::Namespaces)).await.expect("removed");
    assert_eq!(trial.asked(), ["namespaces remove", "microvm remove"]);
    std::fs::write(trial.data.path().join("microvm"), "").expect("files");
    trial.kinds.remove(&trial.spec(Isolation::Namespaces)).await.expect("removed");
    assert_eq!(trial.asked(), ["microvm remove", "namespaces remove"]);
}

#[tokio::test]
async fn what_two_kinds_know_of_a_session_is_one() {
    let trial = Trial::of(&Isolation::ALL);
    let all = trial.kinds.inventory().await.expect("looked");
    let told: Vec<_> = all.iter().map(|f| (f.session.as_str(), f.room, f.files, f.layers.len())).collect();
    assert_eq!(told, [("sesn_a", true, false, 1), ("sesn_b", true, true, 2), ("sesn_c", false, true, 1)]);
}

#[tokio::test]
async fn a_kind_that_is_not_set_up_says_what_to_do() {
    let trial = Trial::of(&[Isolation::Namespaces]);
    let kinds = trial.kinds.without(Isolation::Microvm, "there is no guest", "run `loopd image build`");
    let session = SessionId::parse("session", "sesn_a").expect("an id");
    let plain = RoomSpec::plain(session, Epoch(1), PathBuf::from("/nowhere"));
    let spec = RoomSpec { isolation: Isolation::Microvm, root: RoomRoot::Host, ..plain };
    for fault in [
        refusal(kinds.start(&spec).await.map(drop)),
        refusal(kinds.adopt(&spec).await.map(drop)),
        refusal(kinds.read_files(&spec, &mut Nowhere).map(drop)),
    ] {
        assert!(fault.is_permanent(), "{fault}");
        let told = fault.to_string();
        assert!(
            told.contains("`microvm`") && told.contains("no guest") && told.contains("`loopd image build`"),
            "{told}"
        );
    }
    // What there is of it can be removed all the same.
    kinds.remove(&spec).await.expect("removed");
    let checks: Vec<_> = kinds.probe().await.into_iter().map(|c| (c.name, c.verdict, c.remedy)).collect();
    assert_eq!(checks[0], ("namespaces: launcher".to_owned(), CheckVerdict::Works, String::new()));
    let broken = ("microvm: rooms".to_owned(), CheckVerdict::Broken, "run `loopd image build`".to_owned());
    assert_eq!(checks[1..], [broken]);
}
