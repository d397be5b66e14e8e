//! Images that were replaced, and what still needs them.

use super::later;
use super::support::Ground;
use loopd_sandbox::conformance::Visitor;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

/// Images of one ground alone.
struct Images(PathBuf);

impl Images {
    /// Copies of what the current image of all tests is made of.
    fn of(ground: &Ground) -> Self {
        let (shared, own) = (fs::canonicalize(ground.data().join("guest")).unwrap(), ground.data().join("guest"));
        fs::remove_file(&own).unwrap();
        let images = Images(own);
        let name = |field: &str| current(&shared)[field].as_str().unwrap().to_owned();
        let parts = [
            ("kernels", name("kernel")),
            ("initramfs", format!("{}.cpio", name("initramfs"))),
            ("bases", name("base")),
        ];
        for (shelf, name) in parts {
            fs::create_dir_all(images.0.join(shelf)).unwrap();
            copy(&shared.join(shelf).join(&name), &images.0.join(shelf).join(&name));
        }
        copy(&shared.join("current.json"), &images.0.join("current.json"));
        images
    }

    fn base(&self) -> PathBuf {
        self.0.join("bases").join(current(&self.0)["base"].as_str().unwrap())
    }

    /// Another image becomes the current one. Answers the base of the one before.
    fn replace(&self) -> PathBuf {
        let (old, mut manifest) = (self.base(), current(&self.0));
        let name = old.file_name().unwrap().to_str().unwrap();
        let next = format!(
            "{}.{:016x}.ext4",
            name.split('.').next().unwrap(),
            fs::read_dir(self.0.join("bases")).unwrap().count()
        );
        copy(&old, &old.with_file_name(&next));
        manifest["base"] = next.into();
        fs::write(self.0.join("current.json"), manifest.to_string()).unwrap();
        old
    }

    /// Nobody has wanted any of it for long.
    fn age(&self) {
        let long_ago = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        for path in ["kernels", "initramfs", "bases", "templates"].iter().flat_map(|shelf| below(&self.0.join(shelf))) {
            File::open(&path).unwrap().set_modified(long_ago).unwrap();
            for inner in below(&path) {
                File::open(inner).unwrap().set_modified(long_ago).unwrap();
            }
            File::open(&path).unwrap().set_modified(long_ago).unwrap();
        }
    }

    /// The bases of which templates say that they are made.
    fn of_templates(&self) -> Vec<String> {
        let notes = below(&self.0.join("templates")).into_iter().map(|template| template.join("made"));
        notes
            .map(|note| {
                serde_json::from_slice::<serde_json::Value>(&fs::read(note).unwrap()).unwrap()["base"]
                    .as_str()
                    .unwrap()
                    .to_owned()
            })
            .collect()
    }
}

fn current(guest: &Path) -> serde_json::Value {
    serde_json::from_slice(&fs::read(guest.join("current.json")).unwrap()).unwrap()
}

fn below(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").args(["-a", "--sparse=always"]).arg(from).arg(to).status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_that_was_replaced_stays_for_whoever_lives_or_sleeps_on_it() {
    let Some(ground) = Ground::with_test_cell() else { return };
    let images = Images::of(&ground);
    let subject = ground.subject();
    let (awake, asleep) = (subject.spec(), subject.spec());
    let mut living = subject.enter(&awake).await;
    let mut sleeper = subject.enter(&asleep).await;
    sleeper.tool("echo kept > kept; echo remembered > /tmp/memory").await;
    let old = images.replace();
    // Put to sleep after another image was built: it is made of its own all the same.
    subject.sandbox().suspend(&asleep, sleeper.into_room()).await.unwrap();
    images.age();
    subject.sandbox().inventory().await.unwrap();
    assert!(old.exists() && images.base().exists());
    assert_eq!(living.tool("ls /usr/bin/bash").await.text, "/usr/bin/bash\n");
    let asleep = later(&asleep);
    let next = subject.another();
    let mut woken = Visitor::greeted(next.adopt(&asleep).await.unwrap().expect("it sleeps")).await;
    assert_eq!(woken.tool("cat /tmp/memory kept; md5sum < /usr/bin/bash | wc -l").await.text, "remembered\nkept\n1\n");
    next.suspend(&asleep, woken.into_room()).await.unwrap();
    living.leave().await;
    images.age();
    next.inventory().await.unwrap();
    assert!(old.exists(), "one still sleeps on it");
    next.remove(&asleep).await.unwrap();
    next.inventory().await.unwrap();
    assert!(!old.exists() && images.base().exists());
    assert_eq!(images.of_templates().len(), 0, "nothing can be made of a template without its image");

    // Of the current one new machines are made, and nothing of it goes.
    let mut room = subject.enter(&subject.spec()).await;
    images.age();
    next.inventory().await.unwrap();
    assert_eq!(images.of_templates(), [images.base().to_str().unwrap()]);
    assert_eq!(room.tool("true").await.status, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_whose_image_is_gone_wakes_without_its_memory_and_with_its_files() {
    let Some(ground) = Ground::with_test_cell() else { return };
    let images = Images::of(&ground);
    let subject = ground.subject();
    let spec = subject.spec();
    let mut room = subject.enter(&spec).await;
    room.tool("echo kept > kept; echo remembered > /tmp/memory").await;
    subject.sandbox().suspend(&spec, room.into_room()).await.unwrap();
    fs::remove_file(images.replace()).unwrap();
    let spec = later(&spec);
    assert!(subject.sandbox().adopt(&spec).await.unwrap().is_none());
    assert!(!spec.directory.join("machine.suspended").exists());
    let mut room = subject.enter(&spec).await;
    assert_eq!(room.tool("cat kept; cat /tmp/memory 2>/dev/null").await.text, "kept\n");
}
