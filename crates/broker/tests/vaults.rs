//! Vaults over a real store: what is opened for whom, how soon a change shows, and what another key does.

use loopd_broker::vault::mcp_url;
use loopd_broker::vault::{Kms, LocalKms, MasterKey, OpenError, RotateError, VaultError, rotate};
use loopd_broker::{Bearers, Client, Credentials, Placeholders, Placement, RunningCalls, Sealer, Secret, Vaults};
use loopd_domain::agent::Metadata;
use loopd_domain::environment::Networking;
use loopd_domain::limits::{FORMER_SECRETS_MAX, FORMER_SECRETS_MS, OPENED_VAULT_MS};
use loopd_domain::vault::{Credential, CredentialAuth, CredentialNetworking, InjectionPlace, Vault};
use loopd_domain::{Clock, CredentialId, Epoch, SessionId, Timestamp, VaultId, WorkspaceId};
use loopd_store::sqlite::SqliteStore;
use loopd_store::{KeyOwner, SealedCredential, Store};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use tempfile::TempDir;

/// Stands still until it is moved.
struct Hand(AtomicI64);

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::Relaxed))
    }
}

struct Fixture {
    // Closed before its directory goes.
    store: Arc<dyn Store>,
    clock: Arc<Hand>,
    directory: TempDir,
}

fn key() -> MasterKey {
    MasterKey::random().expect("random")
}

fn only(key: &MasterKey) -> Arc<dyn Kms> {
    Arc::new(LocalKms::new(key.clone(), Vec::new()))
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Arc::new(SqliteStore::open(&directory.path().join("loopd.db")).expect("opens"));
        Fixture { store, clock: Arc::new(Hand(AtomicI64::new(1_000_000))), directory }
    }

    async fn try_open(&self, kms: Arc<dyn Kms>) -> Result<Vaults, OpenError> {
        Vaults::open(self.store.clone(), kms, self.clock.clone()).await
    }

    async fn open(&self, key: &MasterKey) -> Vaults {
        self.try_open(only(key)).await.expect("opens")
    }

    fn pass(&self, ms: u64) {
        self.clock.0.fetch_add(ms as i64, Ordering::Relaxed);
    }

    /// Files of the store that hold these bytes.
    fn holders(&self, bytes: &[u8]) -> Vec<PathBuf> {
        let files = std::fs::read_dir(self.directory.path()).expect("listed").map(|f| f.expect("a file").path());
        let has = |path: &PathBuf| std::fs::read(path).expect("readable").windows(bytes.len()).any(|w| w == bytes);
        files.filter(has).collect()
    }
}

fn workspace(name: &str) -> WorkspaceId {
    WorkspaceId::parse("id", &format!("wrkspc_{name}")).expect("an id")
}

fn vault(id: &str) -> Vault {
    Vault {
        id: VaultId::parse("id", &format!("vlt_{id}")).expect("an id"),
        workspace: workspace("a"),
        display_name: "v".to_owned(),
        metadata: Metadata::new(),
        created_at: Timestamp(1),
        updated_at: Timestamp(1),
        archived_at: None,
    }
}

fn variable(name: &str) -> CredentialAuth {
    CredentialAuth::EnvironmentVariable {
        secret_name: name.to_owned(),
        networking: CredentialNetworking::Limited { allowed_hosts: vec!["api.example.com".to_owned()] },
        place: InjectionPlace::Anywhere { header: true, body: false },
    }
}

fn bearer(url: &str) -> CredentialAuth {
    CredentialAuth::StaticBearer {
        mcp_server_url: url.to_owned(),
        normal_url: mcp_url::normal(url).expect("an address"),
    }
}

fn credential(id: &str, vault: &Vault, auth: CredentialAuth) -> Credential {
    Credential {
        id: CredentialId::parse("id", &format!("vcrd_{id}")).expect("an id"),
        vault: vault.id.clone(),
        workspace: vault.workspace.clone(),
        display_name: None,
        auth,
        metadata: Metadata::new(),
        created_at: Timestamp(2),
        updated_at: Timestamp(2),
        archived_at: None,
    }
}

fn secret(text: &str) -> Secret {
    Secret::new(text.as_bytes().to_vec())
}

async fn add(vaults: &Vaults, id: &str, vault: &Vault, auth: CredentialAuth, text: &str) -> Credential {
    let new = credential(id, vault, auth);
    vaults.add(new.clone(), &secret(text), None).await.expect("added");
    new
}

fn client(session: &str, vaults: &[&Vault]) -> Client {
    Client {
        session: SessionId::parse("id", &format!("sesn_{session}")).expect("an id"),
        workspace: workspace("a"),
        epoch: Epoch(1),
        networking: Networking::Unrestricted,
        ports: vec![443],
        mcp_hosts: Vec::new(),
        vaults: vaults.iter().map(|v| v.id.clone()).collect(),
        running: RunningCalls::default(),
    }
}

async fn secrets(vaults: &Vaults, client: &Client) -> Vec<(String, String)> {
    let bound = vaults.of(client).await.expect("open");
    let text = |s: &Secret| String::from_utf8(s.reveal().to_vec()).expect("text");
    bound.iter().map(|one| (one.variable.clone(), text(&one.secret))).collect()
}

async fn rotate_secret(vaults: &Vaults, of: &Credential, text: &str) {
    let names = (&of.workspace, &of.vault, &of.id);
    vaults.change::<VaultError>(names, Some(&secret(text)), Ok).await.expect("changed");
}

const TOKEN: &str = "tok-0123456789-abcdefghijklmnop";

#[tokio::test]
async fn a_session_is_given_placeholders_and_its_secrets_are_bound_to_them() {
    let (fixture, key, first) = (Fixture::new(), key(), vault("1"));
    let vaults = fixture.open(&key).await;
    vaults.create(first.clone(), None).await.expect("created");
    let own = add(&vaults, "1", &first, variable("API_TOKEN"), TOKEN).await;
    add(&vaults, "2", &first, variable("PIN"), "1234").await;
    let aws = CredentialAuth::EnvironmentVariable {
        secret_name: "AWS_SECRET_ACCESS_KEY".to_owned(),
        networking: CredentialNetworking::Unrestricted,
        place: InjectionPlace::AwsSignature { access_key_id: "AKIA1".to_owned() },
    };
    add(&vaults, "3", &first, aws, "aws-secret-of-forty-characters-012345678").await;

    let one = client("1", &[&first]);
    let bound = vaults.of(&one).await.expect("open");
    assert_eq!(bound.len(), 3);
    assert_eq!((&bound[0].credential, bound[0].variable.as_str()), (&own.id, "API_TOKEN"));
    assert_eq!(bound[0].secret.reveal(), TOKEN.as_bytes());
    assert_eq!(bound[0].hosts.as_deref(), Some(&["api.example.com".to_owned()][..]));
    assert_eq!(bound[0].placement, Placement::Anywhere { headers: true, body: false });
    assert_eq!((bound[0].placeholder.len(), bound[1].placeholder.len()), (TOKEN.len(), 20));
    assert_eq!(bound[2].hosts, None);
    assert_eq!(bound[2].placement, Placement::AwsSignature { access_key_id: "AKIA1".to_owned() });

    let variables = vaults.variables(&one).await.expect("open");
    let placeholders: Vec<_> = bound.iter().map(|b| (b.variable.clone(), b.placeholder.clone())).collect();
    assert_eq!(variables, placeholders);
    let other = vaults.variables(&client("2", &[&first])).await.expect("open");
    assert!(variables.iter().zip(&other).all(|(a, b)| a.0 == b.0 && a.1 != b.1), "{variables:?} {other:?}");
    assert_eq!(vaults.variables(&client("3", &[])).await.expect("open"), []);
    let foreign = Client { workspace: workspace("b"), ..client("4", &[&first]) };
    assert_eq!(vaults.variables(&foreign).await.expect("open"), []);
    assert_eq!(vaults.variables(&client("1", &[&first])).await.expect("open"), variables, "the same again");

    // What was given stays what it was when the server starts anew.
    drop(vaults);
    let again = fixture.open(&key).await;
    assert_eq!(again.variables(&one).await.expect("open"), variables);
}

#[tokio::test]
async fn changes_show_at_once_and_a_placeholder_stays_through_a_rotation() {
    let (fixture, key, first) = (Fixture::new(), key(), vault("1"));
    let vaults = fixture.open(&key).await;
    vaults.create(first.clone(), None).await.expect("created");
    let own = add(&vaults, "1", &first, variable("A"), TOKEN).await;
    let one = client("1", &[&first]);
    let before = vaults.variables(&one).await.expect("open");
    for text in ["a longer one than the first was, by far: 0123456789", "short"] {
        rotate_secret(&vaults, &own, text).await;
        assert_eq!(secrets(&vaults, &one).await, [("A".to_owned(), text.to_owned())]);
        assert_eq!(vaults.variables(&one).await.expect("open"), before);
    }
    let second = add(&vaults, "2", &first, variable("B"), TOKEN).await;
    assert_eq!(secrets(&vaults, &one).await.len(), 2);
    vaults.delete_credential((&second.workspace, &second.vault, &second.id)).await.expect("deleted");
    assert_eq!(secrets(&vaults, &one).await.len(), 1);
    vaults.archive_credential((&own.workspace, &own.vault, &own.id), Timestamp(9)).await.expect("archived");
    assert_eq!(secrets(&vaults, &one).await, []);
    let late = vaults.change::<VaultError>((&own.workspace, &own.vault, &own.id), None, Ok).await;
    assert!(matches!(late, Err(VaultError::Archived)), "{late:?}");

    add(&vaults, "3", &first, variable("A"), TOKEN).await;
    assert_eq!(secrets(&vaults, &one).await.len(), 1);
    vaults.archive(&first.workspace, &first.id, Timestamp(9)).await.expect("archived");
    assert_eq!(secrets(&vaults, &one).await, []);
    let late = vaults.add(credential("4", &first, variable("C")), &secret(TOKEN), None).await;
    assert!(matches!(late, Err(VaultError::Archived)), "{late:?}");
    vaults.delete(&first.workspace, &first.id).await.expect("deleted");
    let late = vaults.add(credential("4", &first, variable("C")), &secret(TOKEN), None).await;
    assert!(matches!(late, Err(VaultError::Absent)), "{late:?}");
}

#[tokio::test]
async fn what_another_process_changes_shows_after_a_moment() {
    let (fixture, key, first) = (Fixture::new(), key(), vault("1"));
    let vaults = fixture.open(&key).await;
    let other = fixture.open(&key).await;
    vaults.create(first.clone(), None).await.expect("created");
    let own = add(&vaults, "1", &first, variable("A"), TOKEN).await;
    let one = client("1", &[&first]);
    assert_eq!(secrets(&vaults, &one).await[0].1, TOKEN);
    rotate_secret(&other, &own, "another token").await;
    assert_eq!(secrets(&vaults, &one).await[0].1, TOKEN, "kept, and not read for each request");
    fixture.pass(OPENED_VAULT_MS);
    assert_eq!(secrets(&vaults, &one).await[0].1, "another token");
}

#[tokio::test]
async fn the_first_vault_with_a_match_wins() {
    let (fixture, key, first, second) = (Fixture::new(), key(), vault("1"), vault("2"));
    let vaults = fixture.open(&key).await;
    for (n, vault) in [&first, &second].into_iter().enumerate() {
        vaults.create(vault.clone(), None).await.expect("created");
        add(&vaults, &format!("{n}a"), vault, variable("A"), &format!("secret of vault {n}")).await;
        add(&vaults, &format!("{n}b"), vault, bearer("https://MCP.example.com:443/x/"), &format!("bearer {n}")).await;
    }
    let url = "https://mcp.example.com/x".parse().expect("an address");
    for (order, wanted) in [([&first, &second], "0"), ([&second, &first], "1")] {
        let client = client(wanted, &order);
        assert_eq!(secrets(&vaults, &client).await, [("A".to_owned(), format!("secret of vault {wanted}"))]);
        let shown = vaults.bearer_for(&client, &url).await.expect("open").expect("a match");
        assert_eq!(shown.token.reveal(), format!("bearer {wanted}").as_bytes());
        let mask = vaults.mask(&client).await.expect("open");
        for hidden in ["secret of vault 0", "secret of vault 1"] {
            assert!(!mask.text(&format!("<{hidden}>")).contains(hidden), "the one that does not win is a secret too");
        }
    }
    let elsewhere = "https://mcp.example.com/y".parse().expect("an address");
    assert!(vaults.bearer_for(&client("1", &[&first]), &elsewhere).await.expect("open").is_none());
    let foreign = Client { workspace: workspace("b"), ..client("2", &[&first]) };
    assert!(vaults.bearer_for(&foreign, &url).await.expect("open").is_none());
}

#[tokio::test]
async fn a_mask_follows_the_secrets() {
    let (fixture, key, first) = (Fixture::new(), key(), vault("1"));
    let vaults = fixture.open(&key).await;
    vaults.create(first.clone(), None).await.expect("created");
    let own = add(&vaults, "1", &first, variable("A"), TOKEN).await;
    let one = client("1", &[&first]);
    let placeholder = vaults.variables(&one).await.expect("open").remove(0).1;
    let mask = vaults.mask(&one).await.expect("open");
    assert_eq!(mask.text(&format!("x {TOKEN} y")), format!("x {placeholder} y"));
    rotate_secret(&vaults, &own, "another-token-0123").await;
    let mask = vaults.mask(&one).await.expect("open");
    assert_eq!(mask.text("x another-token-0123 y"), format!("x {placeholder} y"));
}

#[tokio::test]
async fn what_a_room_may_have_been_shown_stays_masked_after_it_was_rotated_or_is_gone() {
    let (fixture, key, first) = (Fixture::new(), key(), vault("1"));
    let vaults = fixture.open(&key).await;
    vaults.create(first.clone(), None).await.expect("created");
    let own = add(&vaults, "1", &first, variable("A"), "token-number-0000").await;
    let one = client("1", &[&first]);
    let placeholder = vaults.variables(&one).await.expect("open").remove(0).1;
    let masks = async |text: &str| {
        let masked = vaults.mask(&one).await.expect("open").text(&format!("x {text} y")).into_owned();
        masked == format!("x {placeholder} y")
    };
    // By somebody else's hand as well, which shows after a moment.
    let other = fixture.open(&key).await;
    rotate_secret(&other, &own, "token-number-0001").await;
    fixture.pass(OPENED_VAULT_MS);
    assert!(masks("token-number-0000").await && masks("token-number-0001").await);
    rotate_secret(&vaults, &own, "token-number-0002").await;
    assert!(masks("token-number-0000").await && masks("token-number-0002").await);
    vaults.delete_credential((&own.workspace, &own.vault, &own.id)).await.expect("deleted");
    assert!(vaults.variables(&one).await.expect("open").is_empty());
    assert!(masks("token-number-0001").await && masks("token-number-0002").await);
    // Another session is not told another's: the same text, another placeholder.
    let mask = vaults.mask(&client("2", &[&first])).await.expect("open");
    let masked = mask.text("x token-number-0002 y").into_owned();
    assert!(!masked.contains("token-number") && !masked.contains(&placeholder), "{masked}");
    // A bounded number of them, the youngest; and not for ever.
    let own = add(&vaults, "2", &first, variable("A"), "other-number-0000").await;
    for number in 1..=FORMER_SECRETS_MAX + 1 {
        assert!(!vaults.of(&one).await.expect("open").is_empty());
        rotate_secret(&vaults, &own, &format!("other-number-{number:04}")).await;
    }
    let mask = vaults.mask(&one).await.expect("open");
    assert!(mask.text("other-number-0000").contains("number") && mask.text("token-number-0002").contains("number"));
    assert!(!mask.text("other-number-0001").contains("number"), "{}", mask.text("other-number-0001"));
    fixture.pass(FORMER_SECRETS_MS);
    let mask = vaults.mask(&one).await.expect("open");
    assert!(mask.text("other-number-0002").contains("number"), "nobody has looked for a day");
}

#[tokio::test]
async fn no_file_of_the_store_holds_a_secret_or_a_key() {
    let (fixture, key, first) = (Fixture::new(), key(), vault("1"));
    let vaults = fixture.open(&key).await;
    vaults.create(first.clone(), None).await.expect("created");
    let own = add(&vaults, "1", &first, variable("A"), TOKEN).await;
    rotate_secret(&vaults, &own, "second-token-9876543210").await;
    add(&vaults, "2", &first, bearer("https://h/"), "bearer-token-5555555").await;
    // What is not secret is there, so what is searched is what was written.
    assert!(!fixture.holders(b"api.example.com").is_empty());
    for text in [TOKEN, "second-token-9876543210", "bearer-token-5555555"] {
        assert_eq!(fixture.holders(text.as_bytes()), Vec::<PathBuf>::new(), "{text}");
    }
    assert_eq!(fixture.holders(key.text().reveal()), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn a_wrong_key_is_a_refusal_that_names_both() {
    let (fixture, [right, wrong]) = (Fixture::new(), [key(), key()]);
    drop(fixture.open(&right).await);
    let told = fixture.try_open(only(&wrong)).await.expect_err("refused").to_string();
    assert!(told.contains(right.id()) && told.contains(wrong.id()) && told.contains("rotate-master"), "{told}");
    let vaults = fixture.open(&right).await;
    vaults.create(vault("1"), None).await.expect("created");
    let told = fixture.try_open(only(&wrong)).await.expect_err("refused").to_string();
    assert!(told.contains("for 2 of its keys"), "{told}");
    let both = LocalKms::new(wrong, vec![right]);
    fixture.try_open(Arc::new(both)).await.expect("one of them is right");
}

/// A key service that is right about the name of its key and wrong about the key.
struct Liar(LocalKms, String);

#[async_trait::async_trait]
impl Kms for Liar {
    fn key_id(&self) -> &str {
        &self.1
    }
    fn known(&self) -> Vec<String> {
        vec![self.1.clone()]
    }
    async fn wrap(&self, context: &[u8], key: &Secret) -> Result<Vec<u8>, loopd_broker::vault::KmsError> {
        self.0.wrap(context, key).await
    }
    async fn unwrap(&self, _: &str, context: &[u8], wrapped: &[u8]) -> Result<Secret, loopd_broker::vault::KmsError> {
        self.0.unwrap(self.0.key_id(), context, wrapped).await
    }
}

#[tokio::test]
async fn a_key_under_the_right_name_is_tried_before_it_is_believed() {
    let (fixture, right) = (Fixture::new(), key());
    drop(fixture.open(&right).await);
    let liar = Liar(LocalKms::new(key(), Vec::new()), right.id().to_owned());
    let told = fixture.try_open(Arc::new(liar)).await.expect_err("refused");
    assert!(matches!(told, OpenError::Kms(_)), "{told}");
}

#[tokio::test]
async fn a_secret_moved_to_another_place_or_put_back_does_not_open() {
    let (fixture, key, first, second) = (Fixture::new(), key(), vault("1"), vault("2"));
    let vaults = fixture.open(&key).await;
    for vault in [&first, &second] {
        vaults.create(vault.clone(), None).await.expect("created");
    }
    let own = add(&vaults, "1", &first, variable("A"), TOKEN).await;
    let store = fixture.store.vaults();
    let old = store.sealed(&own.workspace, &own.vault, &own.id).await.expect("readable").expect("there");
    rotate_secret(&vaults, &own, "the new one").await;

    // The old secret under the new version, as somebody with access to the file would put it back.
    let back = SealedCredential {
        secret: loopd_store::SealedSecret { version: 2, ..old.secret.clone() },
        credential: old.credential.clone(),
    };
    store.change(back, 2).await.expect("written");
    fixture.pass(OPENED_VAULT_MS);
    let told = vaults.of(&client("1", &[&first])).await.expect_err("refused").to_string();
    assert!(told.contains(own.id.as_str()) && !told.contains(TOKEN), "{told}");

    // Into another vault.
    let moved = SealedCredential { credential: credential("2", &second, variable("A")), secret: old.secret };
    store.add(moved, None).await.expect("written");
    vaults.of(&client("2", &[&second])).await.expect_err("refused");

    // The data key of one vault in the place of another's.
    let owner = |v: &Vault| KeyOwner::Vault { workspace: v.workspace.clone(), vault: v.id.clone() };
    let [a, b] = [&first, &second].map(owner);
    let [ka, kb] = [store.key(&a).await, store.key(&b).await].map(|k| k.expect("readable").expect("there"));
    assert!(store.rewrap(&b, kb, ka).await.expect("written"));
    let third = vaults.add(credential("3", &second, variable("B")), &secret(TOKEN), None).await;
    assert!(matches!(third, Err(VaultError::Sealed(_))), "{third:?}");
}

#[tokio::test]
async fn rotating_the_master_key_changes_no_secret_and_can_be_taken_up_in_the_middle() {
    let (fixture, [old, new]) = (Fixture::new(), [key(), key()]);
    let vaults = fixture.open(&old).await;
    let sealed = vaults.seal("egress", &secret("a key of egress")).expect("sealed");
    let mut sessions = Vec::new();
    for n in 0..5 {
        let vault = vault(&n.to_string());
        vaults.create(vault.clone(), None).await.expect("created");
        add(&vaults, &n.to_string(), &vault, variable("A"), &format!("{TOKEN}{n}")).await;
        sessions.push(client(&n.to_string(), &[&vault]));
    }
    let mut before = Vec::new();
    for session in &sessions {
        before.push((secrets(&vaults, session).await, vaults.variables(session).await.expect("open")));
    }
    drop(vaults);

    // Cut off after two keys.
    let store = fixture.store.vaults();
    let under_old = store.keys_not_under(new.id(), 100).await.expect("listed");
    let both = || LocalKms::new(new.clone(), vec![old.clone()]);
    for (owner, wrapped) in store.keys_not_under(new.id(), 2).await.expect("listed") {
        let context = match &owner {
            KeyOwner::House => vec!["house"],
            KeyOwner::Vault { workspace, vault } => vec!["vault", workspace.as_str(), vault.as_str()],
        };
        let mut bytes = Vec::new();
        for part in context {
            bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
            bytes.extend_from_slice(part.as_bytes());
        }
        let data = both().unwrap(&wrapped.master, &bytes, &wrapped.bytes).await.expect("unwrapped");
        let anew = both().wrap(&bytes, &data).await.expect("wrapped");
        let anew = loopd_store::WrappedKey { master: new.id().to_owned(), bytes: anew };
        assert!(store.rewrap(&owner, wrapped, anew).await.expect("written"));
    }
    for alone in [&old, &new] {
        assert!(matches!(fixture.try_open(only(alone)).await, Err(OpenError::OtherKey { .. })));
        let told = rotate(fixture.store.as_ref(), &LocalKms::new(alone.clone(), Vec::new())).await;
        assert!(matches!(told, Err(RotateError::OtherKey { .. })), "{told:?}");
    }
    let meanwhile = fixture.try_open(Arc::new(both())).await.expect("both are known");
    for (session, before) in sessions.iter().zip(&before) {
        assert_eq!(&secrets(&meanwhile, session).await, &before.0);
    }
    drop(meanwhile);

    assert_eq!(rotate(fixture.store.as_ref(), &both()).await.expect("goes on"), 4);
    assert_eq!(rotate(fixture.store.as_ref(), &both()).await.expect("nothing to do"), 0);
    assert_eq!(under_old.len(), 6);
    for (_, wrapped) in under_old {
        assert_eq!(
            fixture.holders(&wrapped.bytes),
            Vec::<PathBuf>::new(),
            "a data key is still under the old master key"
        );
    }
    assert!(matches!(fixture.try_open(only(&old)).await, Err(OpenError::OtherKey { .. })));
    let after = fixture.open(&new).await;
    for (session, before) in sessions.iter().zip(&before) {
        assert_eq!(&secrets(&after, session).await, &before.0);
        assert_eq!(&after.variables(session).await.expect("open"), &before.1);
    }
    assert_eq!(Sealer::open(&after, "egress", &sealed).expect("opens").reveal(), b"a key of egress");
}

#[tokio::test]
async fn of_changes_at_once_none_is_lost() {
    let (fixture, key, first) = (Fixture::new(), key(), vault("1"));
    let vaults = Arc::new(fixture.open(&key).await);
    vaults.create(first.clone(), None).await.expect("created");
    let own = add(&vaults, "1", &first, variable("A"), TOKEN).await;
    let tasks = (0..4).map(|n| {
        let (vaults, own) = (vaults.clone(), own.clone());
        tokio::spawn(async move {
            let names = (&own.workspace, &own.vault, &own.id);
            let text = secret(&format!("of writer {n}, at last"));
            let noted = |old: Credential| {
                let mut metadata = old.metadata.clone();
                metadata.insert(n.to_string(), "was here".to_owned());
                Ok::<_, VaultError>(Credential { metadata, ..old })
            };
            vaults.change(names, Some(&text), noted).await.expect("changed");
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.expect("no panic");
    }
    let store = fixture.store.vaults();
    let end = store.sealed(&own.workspace, &own.vault, &own.id).await.expect("readable").expect("there");
    assert_eq!(end.secret.version, 5);
    assert_eq!(end.credential.metadata.len(), 4, "no change was lost");
    assert!(secrets(&vaults, &client("1", &[&first])).await[0].1.ends_with("at last"));
}
