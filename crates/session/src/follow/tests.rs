//! A follower beside a real store: what it takes from its channel, and what it reads.

use super::*;
use crate::hub::{Announcer, Channel, Hub};
use crate::requests::RoomProgress;
use futures_util::FutureExt;
use loopd_domain::content::ContentBlock;
use loopd_domain::limits::{TOLD_BYTES_MAX, TOLD_PER_FOLLOWER_MAX};
use loopd_domain::progress::{Progress, Stage};
use loopd_store::conformance::sample::{Ids, Pen, at, message, session};
use loopd_store::sqlite::SqliteStore;

/// A session with one entry, of whose journal is told, and somebody who follows it.
struct Scene {
    pen: Pen,
    channel: Arc<Channel>,
    announcer: Announcer,
    follower: Follower,
    store: Arc<dyn Store>,
    stopping: watch::Sender<bool>,
    _directory: tempfile::TempDir,
}

impl Scene {
    async fn new() -> Scene {
        let directory = tempfile::tempdir().expect("a directory");
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&directory.path().join("loopd.db")).expect("a store"));
        let pen = Pen::create(&store, session(at(0)), vec![message("1")]).await;
        let channel = Hub::default().channel(&pen.session.id);
        let announcer = channel.announce();
        let stopping = watch::Sender::new(false);
        let (workspace, id) = (pen.session.workspace.clone(), pen.session.id.clone());
        let mut follower = Follower::new(store.clone(), workspace, id, 0, channel.attach(), stopping.subscribe());
        assert_eq!(next(&mut follower).await, (1, "1".to_owned()));
        Scene { pen, channel, announcer, follower, store, stopping, _directory: directory }
    }

    /// Somebody else who follows from now on, and from the beginning.
    fn late(&self) -> Follower {
        let (workspace, id) = (self.pen.session.workspace.clone(), self.pen.session.id.clone());
        Follower::new(self.store.clone(), workspace, id, 0, self.channel.attach(), self.stopping.subscribe())
    }

    async fn append(&mut self, texts: &[&str]) {
        self.pen.append(texts.iter().map(|text| message(text)).collect()).await.expect("appended");
    }

    /// Tells of an entry that says this, whatever the store has there.
    fn tell(&self, seq: Seq, text: &str, bytes: usize) {
        let event = Event { seq, id: EventId::generate(&Ids), at: at(0), body: message(text) };
        self.announcer.written(&event, bytes);
    }
}

fn seq_and_text(item: Option<Result<Followed, StoreError>>) -> (Seq, String) {
    match item {
        Some(Ok(Followed::Event(event))) => match &event.body {
            EventBody::UserMessage { content } => match content.as_slice() {
                [ContentBlock::Text { text }] => (event.seq, text.clone()),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

async fn next(follower: &mut Follower) -> (Seq, String) {
    let item = tokio::time::timeout(std::time::Duration::from_secs(30), follower.next()).await;
    seq_and_text(item.expect("an item"))
}

#[tokio::test]
async fn what_is_told_is_shown_without_a_look_into_the_journal() {
    let mut scene = Scene::new().await;
    scene.tell(2, "told", 100);
    scene.tell(3, "told too", 100);
    for expected in [(2, "told"), (3, "told too")] {
        let item = scene.follower.next().now_or_never().expect("at once");
        assert_eq!(seq_and_text(item), (expected.0, expected.1.to_owned()));
    }
    assert!(scene.follower.next().now_or_never().is_none(), "once");
}

#[tokio::test]
async fn what_is_not_told_or_too_large_is_read() {
    let mut scene = Scene::new().await;
    scene.append(&["2", "3"]).await;
    scene.tell(3, "told", 100);
    assert_eq!(next(&mut scene.follower).await, (2, "2".to_owned()));
    assert_eq!(next(&mut scene.follower).await, (3, "3".to_owned()));
    scene.append(&["4"]).await;
    scene.tell(4, "told", TOLD_BYTES_MAX + 1);
    assert_eq!(next(&mut scene.follower).await, (4, "4".to_owned()));
    scene.tell(5, "told", TOLD_BYTES_MAX);
    assert_eq!(next(&mut scene.follower).await, (5, "told".to_owned()));
}

#[tokio::test]
async fn what_is_kept_for_the_slow_is_bounded_until_they_have_heard_it() {
    let mut scene = Scene::new().await;
    scene.append(&["2", "3", "4"]).await;
    let half = TOLD_BYTES_MAX / 2 + 1;
    scene.tell(2, "told", half);
    scene.tell(3, "told", half);
    scene.tell(4, "told", 100);
    assert_eq!(next(&mut scene.follower).await, (2, "told".to_owned()));
    assert_eq!(next(&mut scene.follower).await, (3, "3".to_owned()), "it was too much");
    assert_eq!(next(&mut scene.follower).await, (4, "4".to_owned()), "it was read with the one before");
    assert!(scene.follower.next().now_or_never().is_none());
    scene.tell(5, "told", half);
    assert_eq!(next(&mut scene.follower).await, (5, "told".to_owned()));
}

#[tokio::test]
async fn who_is_too_slow_to_hear_all_misses_nothing() {
    let mut scene = Scene::new().await;
    scene.append(&["2", "3", "4"]).await;
    (2..=4).for_each(|seq| scene.tell(seq, "told", 100));
    for n in 0..TOLD_PER_FOLLOWER_MAX - 1 {
        let id = EventId::generate(&Ids);
        scene.channel.publish(4, Followed::ToolOutput { id, text: n.to_string() });
    }
    for seq in 2..=4 {
        assert_eq!(next(&mut scene.follower).await, (seq, seq.to_string()));
    }
    let item = scene.follower.next().now_or_never().expect("at once");
    assert!(matches!(item, Some(Ok(Followed::ToolOutput { .. }))), "{item:?}");
}

#[tokio::test]
async fn what_was_taken_out_of_the_journal_is_not_shown_to_who_comes_to_it_late() {
    let mut scene = Scene::new().await;
    scene.append(&["taken out"]).await;
    scene.tell(2, "as it was", 100);
    scene.channel.forget();
    assert_eq!(next(&mut scene.follower).await, (2, "taken out".to_owned()));
    scene.tell(3, "after that", 100);
    assert_eq!(next(&mut scene.follower).await, (3, "after that".to_owned()));
}

#[tokio::test]
async fn the_end_of_who_tells_is_a_reason_to_look() {
    let mut scene = Scene::new().await;
    scene.append(&["not told"]).await;
    assert!(scene.follower.next().now_or_never().is_none() && !scene.follower.is_behind);
    drop(scene.announcer);
    scene.follower.hear();
    assert!(scene.follower.is_behind && !scene.follower.attachment.is_announced());
    assert_eq!(next(&mut scene.follower).await, (2, "not told".to_owned()));
    // From now on the store's own hints are listened to.
    let mut waits = Box::pin(scene.follower.next());
    assert!(waits.as_mut().now_or_never().is_none());
    scene.pen.append(vec![message("of another")]).await.expect("appended");
    let item = tokio::time::timeout(std::time::Duration::from_secs(30), waits).await;
    assert_eq!(seq_and_text(item.expect("an item")), (3, "of another".to_owned()));
}

#[tokio::test]
async fn how_far_a_room_is_is_told_to_who_comes_late_and_to_nobody_when_it_is_there() {
    let mut scene = Scene::new().await;
    let word = |done| RoomProgress { progress: Progress::of(Stage::Pull, "image").bytes(done, None), waited_ms: done };
    let showing = scene.channel.showing();
    for done in 1..4 {
        showing.show(word(done));
    }
    // The last word, once, and after all that is written.
    scene.append(&["2"]).await;
    scene.tell(2, "2", 100);
    assert_eq!(next(&mut scene.follower).await, (2, "2".to_owned()));
    let heard = scene.follower.next().now_or_never().expect("at once").expect("an item").expect("no fault");
    assert_eq!(heard, Followed::RoomProgress(word(3)));
    assert!(scene.follower.next().now_or_never().is_none(), "once");
    let mut follower = scene.late();
    assert_eq!(next(&mut follower).await, (1, "1".to_owned()));
    assert_eq!(next(&mut follower).await, (2, "2".to_owned()));
    let heard = follower.next().now_or_never().expect("at once").expect("an item").expect("no fault");
    assert_eq!(heard, Followed::RoomProgress(word(3)));
    drop(showing);
    assert!(scene.follower.next().now_or_never().is_none());
    let mut last = scene.late();
    assert_eq!(next(&mut last).await, (1, "1".to_owned()));
    assert_eq!(next(&mut last).await, (2, "2".to_owned()));
    assert!(last.next().now_or_never().is_none());
}
