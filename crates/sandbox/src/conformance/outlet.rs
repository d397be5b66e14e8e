//! The only way out of a room: to its own host, for its cell, and for nobody else.

use super::succession::{adopt, later, started_by_a_server_that_is_gone};
use super::{Subject, Visitor};
use crate::{Outlet, RoomOutlet, RoomSpec};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

fn open(subject: &Subject) -> RoomSpec {
    RoomSpec { outlet: RoomOutlet::Open { ports: vec![80, 443] }, ..subject.spec() }
}

fn outlet_of(room: &mut Visitor) -> Box<dyn Outlet> {
    room.room().outlet.take().expect("an open outlet")
}

/// Answers one wish with what it was, and where it came out.
async fn serve(outlet: &mut dyn Outlet, place: &str) {
    let served = tokio::time::timeout(PATIENCE, async {
        let mut stream = outlet.accept().await?;
        let mut wish = String::new();
        stream.read_to_string(&mut wish).await?;
        stream.write_all(format!("{wish} at {place}").as_bytes()).await
    });
    served.await.expect("a wish comes").expect("it is heard and answered");
}

pub(super) async fn a_closed_room_has_no_way_out(subject: &Subject) {
    let mut room = subject.enter(&subject.spec()).await;
    assert!(room.room().outlet.is_none());
    assert_eq!(room.cell("echo [$LOOPD_OUTLET$LOOPD_OUTLET_PORTS]; ls -A /run/loopd").await.text, "[]\n");
    let sockets = room.tool("cat /proc/net/tcp /proc/net/udp | grep -c : ").await;
    assert_eq!(sockets.text, "0\n", "somebody listens, or talks");
    assert_ne!(room.tool("getent hosts example.com").await.status, 0);
}

pub(super) async fn wishes_come_out_at_the_host(subject: &Subject) {
    let mut room = subject.enter(&open(subject)).await;
    let mut outlet = outlet_of(&mut room);
    for wish in ["one", "two"] {
        let (answer, ()) = tokio::join!(room.ask("dial", wish), serve(&mut *outlet, "home"));
        assert_eq!((answer.status, answer.text), (0, format!("{wish} at home")));
    }
    assert_eq!(room.cell("echo $LOOPD_OUTLET_PORTS").await.text, "80,443\n");
    // What the stub needs to be asked and found.
    for port in ["53", "80", "443", "3128"] {
        assert_eq!(room.ask("bind", port).await.text, "bound", "{port}");
    }
    let separate = room.tool("echo $LOOPD_TOOL_UID").await.text.trim() != "same";
    if separate {
        // Through a descriptor that it was given a program could still come; it is given none.
        let answer = room.ask("dial as tool", "let me").await;
        assert!(answer.status == 1 && answer.text.contains("denied"), "{answer:?}");
        assert_ne!(room.tool("ls /run/loopd").await.status, 0);
    }
    for change in ["touch /run/loopd/x", "rm -f /run/loopd/socket", "mv /run/loopd/socket /run/loopd/x"] {
        assert_ne!(room.cell(change).await.status, 0, "{change}");
    }
    // When nobody listens there any more, that is known at once.
    drop(outlet);
    let answer = room.ask("dial", "anybody").await;
    // A guest has accepted by the time that its host refuses; then the connection ends without a word.
    let refused = answer.status == 1 && answer.text.contains("refused");
    assert!(refused || subject.has_own_kernel() && !answer.text.contains("at home"), "{answer:?}");
}

pub(super) async fn two_rooms_ways_are_apart(subject: &Subject) {
    let mut one = subject.enter(&open(subject)).await;
    let mut two = subject.enter(&open(subject)).await;
    let (mut at_one, mut at_two) = (outlet_of(&mut one), outlet_of(&mut two));
    let (from_one, (), from_two, ()) = tokio::join!(
        one.ask("dial", "from one"),
        serve(&mut *at_one, "one"),
        two.ask("dial", "from two"),
        serve(&mut *at_two, "two"),
    );
    assert_eq!((from_one.text.as_str(), from_two.text.as_str()), ("from one at one", "from two at two"));
}

pub(super) async fn a_next_server_has_the_way_out(subject: &Subject) {
    let spec = open(subject);
    let mut room = started_by_a_server_that_is_gone(subject, &spec).await;
    let mut first = outlet_of(&mut room);
    let (answer, ()) = tokio::join!(room.ask("dial", "wish"), serve(&mut *first, "first"));
    assert_eq!(answer.text, "wish at first");
    room.abandon();
    // The one before was only asleep: it holds a socket that nobody finds any more.
    let mut room = Visitor::greeted(adopt(subject.sandbox(), &later(&spec)).await.expect("the room lives")).await;
    let mut second = outlet_of(&mut room);
    let (answer, ()) = tokio::join!(room.ask("dial", "wish"), serve(&mut *second, "second"));
    assert_eq!(answer.text, "wish at second");
    drop(first);
    let (answer, ()) = tokio::join!(room.ask("dial", "wish"), serve(&mut *second, "second"));
    assert_eq!(answer.text, "wish at second");
    // And when the room is another one, of the same session.
    room.leave().await;
    let mut room = subject.enter(&later(&spec)).await;
    let mut third = outlet_of(&mut room);
    let (answer, ()) = tokio::join!(room.ask("dial", "wish"), serve(&mut *third, "third"));
    assert_eq!(answer.text, "wish at third");
    room.leave().await;
    subject.sandbox().remove(&later(&spec)).await.expect("removing a place with an outlet");
    assert!(!spec.directory.exists());
}
