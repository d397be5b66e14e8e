//! S3 as `boto3` speaks it, from a room that has a placeholder for a key: what it signs is signed again on its way out, and a store that
//! knows nothing of us takes it for signed with the real one.

use loopd_tests::http::{Frame, text, tool_results};
use loopd_tests::index::Index;
use loopd_tests::script::{invocation, runs, says};
use loopd_tests::server::Options;
use loopd_tests::site::Papers;
use loopd_tests::{Server, skip, wheels};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

const STORE: &str = "s3.test";
const KEY_ID: &str = "AKIDOFATESTOFLOOPD";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

/// What a program in the room does, with nothing changed but where the store is.
const PROGRAM: &str = r#"
import io, os, urllib.request
import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

def client(**more):
    config = Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path", **more})
    return boto3.client("s3", region_name="eu-central-1", endpoint_url=os.environ["STORE"], aws_access_key_id=os.environ["KEY_ID"],
                        aws_secret_access_key=os.environ["AWS_SECRET_ACCESS_KEY"], config=config)

s3 = client()
large = os.urandom(300_000)
for name, body in [("a", b"hello"), ("empty", b""), ("stream", io.BytesIO(large)), ("a b/ü+%=&~*", b"named")]:
    s3.put_object(Bucket="bucket", Key=name, Body=body)
assert s3.get_object(Bucket="bucket", Key="a")["Body"].read() == b"hello"
assert s3.get_object(Bucket="bucket", Key="stream")["Body"].read() == large
assert s3.get_object(Bucket="bucket", Key="a b/ü+%=&~*")["Body"].read() == b"named"
assert s3.head_object(Bucket="bucket", Key="a")["ContentLength"] == 5
client(payload_signing_enabled=True).put_object(Bucket="bucket", Key="signed", Body=large)
print("listed", len(s3.list_objects_v2(Bucket="bucket", Prefix="a b/", Delimiter="/")["Contents"]))
url = s3.generate_presigned_url("get_object", Params={"Bucket": "bucket", "Key": "signed"})
assert urllib.request.urlopen(url).read() == large
s3.delete_object(Bucket="bucket", Key="a")
try:
    s3.get_object(Bucket="bucket", Key="a")
except ClientError as fault:
    print("absent", fault.response["Error"]["Code"])
thief = boto3.client("s3", region_name="eu-central-1", endpoint_url=os.environ["STORE"], aws_access_key_id=os.environ["KEY_ID"],
                     aws_secret_access_key="not the placeholder", config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}))
try:
    thief.list_objects_v2(Bucket="bucket")
except Exception as fault:
    print("refused", fault)
print("all done")
"#;

struct Store {
    process: Child,
    said: BufReader<ChildStdout>,
    port: u16,
}

impl Store {
    fn start(place: &Path, papers: &Papers) -> Self {
        std::fs::write(place.join("s3.pem"), &papers.certificate).expect("written");
        std::fs::write(place.join("s3.key"), &papers.key).expect("written");
        let mut command = Command::new("python3");
        command.args(["-c", include_str!("../src/s3.py"), "s3.pem", "s3.key", KEY_ID, SECRET]).current_dir(place);
        let mut process = command.stdout(Stdio::piped()).spawn().expect("python3 starts");
        let mut said = BufReader::new(process.stdout.take().expect("piped"));
        let mut line = String::new();
        said.read_line(&mut line).expect("its port");
        let port = line.trim().parse().expect("a port");
        Store { process, said, port }
    }

    /// The requests that came, once it has ended.
    fn end(mut self) -> Vec<Value> {
        self.process.kill().expect("it runs");
        self.process.wait().expect("it ran");
        let lines = self.said.lines().map(|line| line.expect("text"));
        lines.map(|line| serde_json::from_str(&line).expect("JSON")).collect()
    }
}

#[tokio::test]
async fn boto3_puts_and_gets_with_a_placeholder_for_its_key() {
    let Some(wheels) = wheels() else { return };
    if !Command::new("/usr/bin/python3")
        .args(["-m", "pip", "--version"])
        .output()
        .is_ok_and(|done| done.status.success())
    {
        skip("`/usr/bin/python3 -m pip` does not work");
        return;
    }
    let index = Index::of_wheels(&wheels).await;
    let papers = Papers::new(&[STORE]);
    let root = tempfile::TempDir::with_prefix("loopd-test-").expect("a directory");
    let store = Store::start(root.path(), &papers);
    let port = store.port;
    std::fs::write(root.path().join("roots.pem"), &papers.authority).expect("written");
    let config = format!(
        "[images]\npip_index = \"{}/simple\"\n[network]\nextra_roots = \"roots.pem\"\n\
         allow_addresses = [\"{STORE}:{port}\", \"{}:{}\"]\nhosts = {{ \"{STORE}\" = \"127.0.0.1\", \"{}\" = \"127.0.0.1\" }}\n",
        index.url(),
        Index::HOST,
        index.port(),
        Index::HOST,
    );
    let server = Server::on(root, Options::default().config(&config));
    let http = server.http();
    let vault = http.post("/v1/vaults", json!({"display_name": "test"})).await.ok()["id"].clone();
    let networking = json!({"type": "limited", "allowed_hosts": [STORE]});
    let auth = json!({"type": "environment_variable", "secret_name": "AWS_SECRET_ACCESS_KEY", "secret_value": SECRET,
        "networking": networking, "aws_signature": {"access_key_id": KEY_ID}});
    let credentials = format!("/v1/vaults/{}/credentials", vault.as_str().expect("an id"));
    http.post(&credentials, json!({"auth": auth})).await.ok();
    let command = format!(
        "export STORE=https://{STORE}:{port} KEY_ID={KEY_ID}\ncat > s3.py <<'PY'\n{PROGRAM}PY\n/usr/bin/python3 s3.py 2>&1 | tail -c 4000"
    );
    let mut body = invocation(vec![runs(&command), says("done")]);
    body["environment"] = json!({"packages": {"pip": ["boto3"]},
        "networking": {"type": "limited", "allowed_hosts": [STORE], "ports": [443, port]}});
    body["vaults"] = json!([vault]);
    let answer = http.invoke(body).await;
    let session = answer["session_id"].as_str().expect("a session").to_owned();
    let events = http.events(&session).await;
    let results = tool_results(&events);
    let said = results.first().map(|result| text(&result["content"])).unwrap_or_default();
    let came = store.end();
    assert!(said.ends_with("all done\n"), "{said}\n{came:#?}\n{answer}");
    assert!(said.contains("listed 5\nabsent NoSuchKey\nrefused "), "{said}");
    // boto3 shows the status alone; the reason stands in the session's events.
    let is_told = |frame: &Frame| frame.data["outcome"]["type"] == "refused";
    let told = http.follow(&session, 0).await.until(is_told).await.pop().expect("it is told").data;
    let reason = told["outcome"]["reason"].as_str().expect("a reason");
    assert!(reason.contains("was not made with the placeholder as secret key"), "{told}");
    assert!(came.iter().all(|request| request["verdict"] == "fine"), "{came:#?}");
    let payloads: Vec<&str> = came.iter().filter_map(|request| request["payload"].as_str()).collect();
    // As boto3 sends a body by default today, with its checksum behind it; and as it was for years.
    assert!(payloads.contains(&"STREAMING-UNSIGNED-PAYLOAD-TRAILER"), "{payloads:?}");
    assert!(payloads.iter().any(|payload| payload.len() == 64), "{payloads:?}");
    assert!(came.iter().any(|request| request["path"].as_str().is_some_and(|path| path.contains("X-Amz-Signature="))));
    assert!(!json!(events).to_string().contains(SECRET));
}
