//! How a room goes from one server to the next, and that it never has two masters.

use super::life::{exists, survivors, until};
use super::{Subject, Visitor};
use crate::{Found, Room, RoomExit, RoomSpec, Sandbox, SandboxError};
use loopd_domain::Epoch;

pub(super) fn later(spec: &RoomSpec) -> RoomSpec {
    RoomSpec { epoch: Epoch(spec.epoch.0 + 1), ..spec.clone() }
}

pub(super) async fn adopt(sandbox: &dyn Sandbox, spec: &RoomSpec) -> Option<Room> {
    match sandbox.adopt(spec).await {
        Ok(room) => room,
        Err(fault) => panic!("a room could not be adopted: {fault}"),
    }
}

/// A server that is killed runs nothing of its own on the way out: its sandbox goes, its rooms' guards do nothing.
pub(super) async fn started_by_a_server_that_is_gone(subject: &Subject, spec: &RoomSpec) -> Visitor {
    let gone = subject.another();
    match gone.start(spec).await {
        Ok(room) => Visitor::greeted(room).await,
        Err(fault) => panic!("a room could not be started: {fault}"),
    }
}

pub(super) async fn a_room_outlives_its_server(subject: &Subject) {
    let mark = format!("27182.{}", std::process::id());
    let spec = subject.spec();
    assert!(adopt(subject.sandbox(), &spec).await.is_none(), "there is no room yet");
    let mut room = started_by_a_server_that_is_gone(subject, &spec).await;
    let pid = room.room().guard.pid();
    let left = room.tool(&format!("echo remembered > /tmp/kept; sleep {mark} >/dev/null 2>&1 &")).await;
    assert_eq!(left.status, 0, "{left:?}");
    room.abandon();
    let room = adopt(subject.sandbox(), &later(&spec)).await.expect("the room lives");
    let mut room = Visitor::greeted(room).await;
    assert_eq!(room.room().guard.pid(), pid);
    assert_eq!(room.tool("cat /tmp/kept").await.text, "remembered\n");
    let own_kernel = subject.has_own_kernel();
    assert_eq!(if own_kernel { room.count(&mark).await } else { survivors(&mark) }, 1);
    // And again, within one server.
    room.abandon();
    let mut room = Visitor::greeted(adopt(subject.sandbox(), &later(&spec)).await.expect("the room lives")).await;
    assert_eq!(room.ask("echo", "here").await.text, "here");
    let exit = room.leave().await;
    assert!(matches!(exit, RoomExit::Gone | RoomExit::Signal(9)), "{exit:?}");
    let machine = pid.filter(|_| own_kernel);
    assert!(until(|| machine.map_or(survivors(&mark) == 0, |pid| !exists(pid))).await);
    assert!(adopt(subject.sandbox(), &later(&spec)).await.is_none(), "a record of a dead room is no room");
}

pub(super) async fn the_later_of_two_owners_has_it(subject: &Subject) {
    let spec = subject.spec();
    let mut first = started_by_a_server_that_is_gone(subject, &spec).await;
    let second = later(&spec);
    let room = adopt(subject.sandbox(), &second).await.expect("the room lives");
    let mut room = Visitor::greeted(room).await;
    // The first was only asleep. Whatever it does now, it does not reach the room.
    first.room().guard.kill();
    drop(first);
    assert_eq!(room.ask("echo", "unharmed").await.text, "unharmed");
    let zombie = subject.another();
    let attempts = [zombie.adopt(&spec).await.err(), zombie.start(&spec).await.err(), zombie.remove(&spec).await.err()];
    for fault in attempts {
        assert!(matches!(fault, Some(SandboxError::Fenced { epoch }) if epoch == second.epoch), "{fault:?}");
    }
    assert_eq!(room.ask("echo", "unharmed").await.text, "unharmed");
    room.leave().await;
    // Nor when the room is gone: the session is still the second's.
    assert!(matches!(zombie.start(&spec).await.err(), Some(SandboxError::Fenced { .. })));
}

pub(super) async fn nobody_waits_for_a_host_for_ever(subject: &Subject) {
    let mut room = subject.enter(&subject.spec()).await;
    room.ask("echo", "here").await;
    // The host lets go of the channel, but not of the room: the cell ends by itself.
    let (other, _) = crate::Channel::pair().expect("a pair of sockets");
    drop(std::mem::replace(&mut room.room().channel, other));
    assert_eq!(room.exit().await, RoomExit::Code(0));
}

pub(super) async fn a_start_replaces_what_lives(subject: &Subject) {
    let spec = subject.spec();
    started_by_a_server_that_is_gone(subject, &spec).await.abandon();
    let adopted = adopt(subject.sandbox(), &later(&spec)).await.expect("the room lives");
    let mut adopted = Visitor::greeted(adopted).await;
    adopted.tool("echo fleeting > /tmp/lost").await;
    let mut exit = adopted.room().exit.clone();
    let mut room = subject.enter(&later(&spec)).await;
    assert!(exit.borrow_and_update().is_some() || exit.changed().await.is_ok());
    assert_ne!(room.room().guard.pid(), adopted.room().guard.pid());
    assert_ne!(room.tool("cat /tmp/lost").await.status, 0);
    // The hold on the old room reaches the old room only.
    drop(adopted);
    assert_eq!(room.ask("echo", "unharmed").await.text, "unharmed");
}

pub(super) async fn what_is_there_can_be_listed_and_removed(subject: &Subject) {
    let (living, left, dead) = (subject.spec(), subject.spec(), subject.spec());
    let _room = subject.enter(&living).await;
    started_by_a_server_that_is_gone(subject, &left).await.abandon();
    subject.enter(&dead).await.leave().await;
    for (spec, room) in [(&living, true), (&left, true), (&dead, false)] {
        assert_eq!(
            listed(subject, spec).await,
            Some(Found {
                session: spec.session.clone(),
                room,
                can_sleep: room && subject.has_own_kernel(),
                files: true,
                layers: Vec::new()
            })
        );
    }
    subject.sandbox().remove(&later(&left)).await.expect("removing a room that lives");
    assert_eq!(listed(subject, &left).await, None);
    assert!(adopt(subject.sandbox(), &later(&left)).await.is_none());
    // A directory without a room's record counts too.
    let files = subject.spec();
    std::fs::create_dir_all(&files.directory).expect("a directory for the session");
    assert_eq!(listed(subject, &files).await.map(|found| (found.room, found.files)), Some((false, true)));
    subject.sandbox().remove(&files).await.expect("removing a directory");
    assert_eq!(listed(subject, &files).await, None);
}

async fn listed(subject: &Subject, spec: &RoomSpec) -> Option<Found> {
    let all = subject.sandbox().inventory().await.expect("what is there can be read");
    let mut matching = all.into_iter().filter(|found| found.session == spec.session);
    let found = matching.next();
    assert!(matching.next().is_none(), "each session is listed once");
    found
}
