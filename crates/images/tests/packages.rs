//! Packages over a root, installed by one that does as it is told: well, badly, not at all, and with hostile archives.

#![allow(clippy::unwrap_used, reason = "tests and their helpers")]

#[allow(dead_code, reason = "shared with tests that need more of it")]
mod support;

use async_trait::async_trait;
use loopd_domain::environment::{Packages, RootSource};
use loopd_domain::limits::{IMAGE_UNUSED_MS, LAYER_GRACE_MS, PACKAGES_PAUSE_MS};
use loopd_images::packages::{Installed, Installer, Order};
use loopd_images::{ImageError, ImageErrorKind, Resolved};
use loopd_sandbox::RoomRoot;
use loopd_sandbox::progress::Teller;
use std::fs::{self, File};
use std::io::{Seek, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use support::{Host, Server, layer, tar_with};

/// What an installation comes to.
#[derive(Clone)]
enum Outcome {
    Leaves(Vec<u8>),
    /// A layer that no other installation leaves.
    LeavesItsOwn,
    Fails,
    HasNoRoom,
}

struct Hand {
    outcome: Mutex<Outcome>,
    orders: Mutex<Vec<Order>>,
}

impl Hand {
    fn new(outcome: Outcome) -> Arc<Self> {
        Arc::new(Hand { outcome: Mutex::new(outcome), orders: Mutex::default() })
    }

    fn will(&self, outcome: Outcome) {
        *self.outcome.lock().unwrap() = outcome;
    }

    fn orders(&self) -> usize {
        self.orders.lock().unwrap().len()
    }
}

fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    file
}

#[async_trait]
impl Installer for Hand {
    async fn install(&self, order: Order) -> Result<Installed, ImageError> {
        self.orders.lock().unwrap().push(order);
        // Long enough that whoever wants the same comes meanwhile.
        tokio::task::yield_now().await;
        let log = Some(file(b"first\n\x1b[31mlast\n\n"));
        match self.outcome.lock().unwrap().clone() {
            Outcome::Leaves(bytes) => Ok(Installed { failure: None, log, layer: Some(file(&bytes)) }),
            Outcome::LeavesItsOwn => {
                let own = layer(&[("number", &self.orders().to_string())]);
                Ok(Installed { failure: None, log, layer: Some(file(&own)) })
            }
            // It may leave something all the same.
            Outcome::Fails => Ok(Installed {
                failure: Some("exit status 3".to_owned()),
                log,
                layer: Some(file(&layer(&[("x", "x")]))),
            }),
            Outcome::HasNoRoom => Err(ImageError::unavailable("no room")),
        }
    }
}

fn packages(names: &[&str]) -> Packages {
    Packages { pip: names.iter().map(|name| (*name).to_owned()).collect(), ..Packages::default() }
}

async fn furnish(host: &Host, hand: &Arc<Hand>, packages: &Packages) -> Result<Resolved, ImageError> {
    let installer: Arc<dyn Installer> = Arc::clone(hand) as Arc<dyn Installer>;
    host.images.furnish(Resolved::default(), &RootSource::Host, packages, &installer, &Teller::silent()).await
}

fn layers(resolved: &Resolved) -> Vec<PathBuf> {
    assert!(matches!(resolved.root, RoomRoot::HostWith(_)), "{resolved:?}");
    resolved.root.layers().to_vec()
}

#[tokio::test]
async fn what_many_want_is_installed_once_and_known_after_a_restart() {
    let host = Host::new(&Server::start().await);
    let hand = Hand::new(Outcome::Leaves(layer(&[("usr/local/word", "installed")])));
    let (this, that) = (packages(&["a", "b"]), packages(&["b", "a", "a"]));
    let (one, two) = tokio::join!(furnish(&host, &hand, &this), furnish(&host, &hand, &that));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!(one, two);
    assert_eq!(fs::read_to_string(layers(&one)[0].join("usr/local/word")).unwrap(), "installed");
    let host = host.again();
    assert_eq!(furnish(&host, &hand, &this).await.unwrap(), one);
    assert_eq!(hand.orders(), 1);
    // Other names, another layer; and each manager over what the one before left.
    hand.will(Outcome::LeavesItsOwn);
    let both = Packages { npm: vec!["c".to_owned()], ..this };
    let both = furnish(&host, &hand, &both).await.unwrap();
    assert_eq!((hand.orders(), layers(&both).len()), (3, 2));
    assert_eq!(hand.orders.lock().unwrap()[2].root.layers(), &layers(&both)[1..]);
    assert!(both.variables.iter().any(|(name, _)| name == "NODE_PATH"), "{both:?}");
}

#[tokio::test]
async fn over_a_directory_the_layer_lies_on_top() {
    let host = Host::new(&Server::start().await);
    let root = host.allowed.join("root");
    fs::create_dir(&root).unwrap();
    let source = RootSource::Directory { path: root.to_str().unwrap().to_owned() };
    let base = host.images.resolve(&source, &Teller::silent()).await.unwrap();
    let installer: Arc<dyn Installer> = Hand::new(Outcome::Leaves(layer(&[("x", "x")])));
    let resolved = host.images.furnish(base, &source, &packages(&["a"]), &installer, &Teller::silent()).await.unwrap();
    let RoomRoot::Layers(layers) = &resolved.root else { panic!("{resolved:?}") };
    assert_eq!((layers.len(), &layers[1]), (2, &root));
}

#[tokio::test]
async fn a_failure_says_how_it_ended_and_is_not_tried_again_for_a_while() {
    let host = Host::new(&Server::start().await);
    let hand = Hand::new(Outcome::Fails);
    let wanted = packages(&["a"]);
    let fault = furnish(&host, &hand, &wanted).await.unwrap_err();
    assert_eq!(fault.kind(), ImageErrorKind::Packages);
    let told = fault.to_string();
    assert!(told.starts_with("packages by pip: exit status 3; its log, `images/logs/"), "{told}");
    assert!(told.ends_with("first\n [31mlast"), "{told:?}");
    hand.will(Outcome::Leaves(layer(&[("x", "x")])));
    assert_eq!(furnish(&host, &hand, &wanted).await.unwrap_err().to_string(), told);
    assert_eq!(hand.orders(), 1);
    host.clock.advance(PACKAGES_PAUSE_MS);
    furnish(&host, &hand, &wanted).await.unwrap();
}

#[tokio::test]
async fn a_room_that_was_lost_says_nothing_of_the_packages() {
    let host = Host::new(&Server::start().await);
    let hand = Hand::new(Outcome::HasNoRoom);
    let wanted = packages(&["a"]);
    assert_eq!(furnish(&host, &hand, &wanted).await.unwrap_err().kind(), ImageErrorKind::Unavailable);
    hand.will(Outcome::Leaves(layer(&[("x", "x")])));
    furnish(&host, &hand, &wanted).await.unwrap();
}

#[tokio::test]
async fn what_a_room_left_is_unpacked_like_a_strangers_layer() {
    let host = Host::new(&Server::start().await);
    for (name, archive) in [("up", tar_with("../escaped", "x")), ("torn", layer(&[("x", "x")])[..700].to_vec())] {
        let hand = Hand::new(Outcome::Leaves(archive));
        let fault = furnish(&host, &hand, &packages(&[name])).await.unwrap_err();
        assert_eq!(fault.kind(), ImageErrorKind::Broken, "{fault}");
        assert!(fault.to_string().starts_with("packages by pip: what was installed: "), "{fault}");
    }
    assert_eq!(fs::read_dir(host.data().join("images/layers")).unwrap().count(), 0);
    assert!(!host.data().join("images/work/escaped").exists());
}

#[tokio::test]
async fn a_layer_stays_while_it_is_wanted_or_a_room_is_made_of_it() {
    let host = Host::new(&Server::start().await);
    let hand = Hand::new(Outcome::Leaves(layer(&[("x", "x")])));
    let wanted = packages(&["a"]);
    let made = layers(&furnish(&host, &hand, &wanted).await.unwrap());
    host.clock.advance(LAYER_GRACE_MS);
    assert_eq!(host.images.collect(&[]).unwrap().removed, 0);
    host.clock.advance(IMAGE_UNUSED_MS);
    assert_eq!(host.images.collect(&made).unwrap().removed, 0);
    assert_eq!(host.images.collect(&[]).unwrap().removed, 1);
    furnish(&host, &hand, &wanted).await.unwrap();
    assert_eq!(hand.orders(), 2);
}
