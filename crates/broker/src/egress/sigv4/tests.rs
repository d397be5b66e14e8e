//! Against what AWS publishes: the examples of the S3 documentation and of the signature test suite.

use super::*;
use hyper::Method;

const S3_KEY: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
const SUITE_KEY: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const S3_SCOPE: &str = "AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request";
const SUITE_SCOPE: &str = "AKIDEXAMPLE/20150830/us-east-1/service/aws4_request";

struct Case {
    method: Method,
    target: &'static str,
    host: &'static str,
    headers: Vec<(&'static str, String)>,
}

impl Case {
    fn of(method: Method, target: &'static str, host: &'static str, headers: &[(&'static str, &str)]) -> Self {
        let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Case { method, target, host, headers }
    }

    fn signed(mut self, scope: &str, names: &str, signature: &str) -> Self {
        let value = format!("{ALGORITHM} Credential={scope}, SignedHeaders={names},Signature={signature}");
        self.headers.push(("authorization", value));
        self
    }

    fn map(&self) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in &self.headers {
            map.append(*name, value.parse().expect("a value"));
        }
        map
    }

    fn again(&self, old: &str, new: &str) -> Result<(String, Option<Rechunk>), Unsignable> {
        let headers = self.map();
        let signed = Signed::read(self.target, &headers)?.expect("a signature");
        let head = || Head {
            method: &self.method,
            target: self.target,
            headers: &headers,
            host: self.host,
            has_no_body: true,
        };
        let secret = |text: &str| Secret::new(text.as_bytes().to_vec());
        signed.again(&head(), &head(), &secret(old), &secret(new))
    }
}

fn s3(method: Method, target: &'static str, headers: &[(&'static str, &str)], names: &str, signature: &str) -> Case {
    let mut case = Case::of(method, target, "examplebucket.s3.amazonaws.com", headers);
    case.headers.push(("x-amz-date", "20130524T000000Z".to_owned()));
    case.signed(S3_SCOPE, names, signature)
}

/// Each of them: method and target, headers, names of those that are signed, the published signature.
fn published() -> Vec<(Case, &'static str, &'static str)> {
    let suite = |method, target, headers: &[(&'static str, &str)], names, signature| {
        let mut case = Case::of(method, target, "example.amazonaws.com", headers);
        case.headers.push(("x-amz-date", "20150830T123600Z".to_owned()));
        (case.signed(SUITE_SCOPE, names, signature), SUITE_KEY, signature)
    };
    let get = "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41";
    let put = "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd";
    let lifecycle = "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543";
    let list = "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7";
    let plain = [("x-amz-content-sha256", EMPTY)];
    vec![
        (
            s3(
                Method::GET,
                "/test.txt",
                &[("range", "bytes=0-9"), ("x-amz-content-sha256", EMPTY)],
                "host;range;x-amz-content-sha256;x-amz-date",
                get,
            ),
            S3_KEY,
            get,
        ),
        (
            s3(
                Method::PUT,
                "/test%24file.text",
                &[
                    ("date", "Fri, 24 May 2013 00:00:00 GMT"),
                    ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
                    ("x-amz-content-sha256", "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072"),
                ],
                "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
                put,
            ),
            S3_KEY,
            put,
        ),
        (s3(Method::GET, "/?lifecycle", &plain, "host;x-amz-content-sha256;x-amz-date", lifecycle), S3_KEY, lifecycle),
        (s3(Method::GET, "/?max-keys=2&prefix=J", &plain, "host;x-amz-content-sha256;x-amz-date", list), S3_KEY, list),
        suite(
            Method::GET,
            "/",
            &[],
            "host;x-amz-date",
            "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
        ),
        suite(
            Method::POST,
            "/",
            &[],
            "host;x-amz-date",
            "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
        ),
        suite(
            Method::GET,
            "/?Param2=value2&Param1=value1",
            &[],
            "host;x-amz-date",
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
        ),
        suite(
            Method::GET,
            "/",
            &[("my-header1", "value1"), ("my-header2", "\"a   b   c\"")],
            "host;my-header1;my-header2;x-amz-date",
            "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
        ),
    ]
}

#[test]
fn published_signatures_come_out() {
    for (case, key, signature) in published() {
        let (made, chunks) =
            case.again(key, key).unwrap_or_else(|fault| panic!("{} {}: {fault}", case.method, case.target));
        assert_eq!((made.as_str(), chunks.is_none()), (signature, true), "{}", case.target);
    }
}

#[test]
fn another_key_makes_another_signature_and_verifies_in_turn() {
    for (mut case, key, signature) in published() {
        let (made, _) = case.again(key, "another key").expect("signed");
        assert_ne!(made, signature);
        let (_, authorization) = case.headers.last_mut().expect("the signature");
        *authorization = authorization.replace(signature, &made);
        assert_eq!(case.again("another key", key).expect("signed").0, signature);
        assert_eq!(case.again(key, key).expect_err("refused"), Unsignable::Mismatch);
    }
}

#[test]
fn a_presigned_address() {
    let signature = "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404";
    let target = "/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2F\
                  aws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host&X-Amz-Signature=\
                  aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404";
    let case = Case::of(Method::GET, target, "examplebucket.s3.amazonaws.com", &[]);
    assert_eq!(case.again(S3_KEY, S3_KEY).expect("signed").0, signature);
    let signed = Signed::read(target, &HeaderMap::new()).expect("read").expect("a signature");
    assert_eq!(signed.parts().access_key_id, "AKIAIOSFODNN7EXAMPLE");
    let Rewritten::Target(new) = signed.with("ab", target) else { panic!("another kind") };
    assert!(new.ends_with("&X-Amz-Signature=ab") && new.starts_with("/test.txt?"));
    // A signature that is written another way is replaced as well, and nothing else that looks like it.
    let odd = format!("{}&x={signature}", target.replace("Signature=a", "Signature=%61"));
    let signed = Signed::read(&odd, &HeaderMap::new()).expect("read").expect("a signature");
    let Rewritten::Target(new) = signed.with("ab", &odd) else { panic!("another kind") };
    assert!(new.ends_with(&format!("&X-Amz-Signature=ab&x={signature}")), "{new}");
    let sign = target.replace("%2Fus-east-1", "%+fus-east-1");
    assert!(Signed::read(&sign, &HeaderMap::new()).is_err(), "a sign is no digit");
}

const SEED: &str = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9";

fn streaming() -> Case {
    Case::of(
        Method::PUT,
        "/examplebucket/chunkObject.txt",
        "s3.amazonaws.com",
        &[
            ("x-amz-date", "20130524T000000Z"),
            ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
            ("x-amz-content-sha256", chunks::STREAMING),
            ("content-encoding", "aws-chunked"),
            ("x-amz-decoded-content-length", "66560"),
            ("content-length", "66824"),
        ],
    )
    .signed(
        S3_SCOPE,
        "content-encoding;content-length;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;\
         x-amz-storage-class",
        SEED,
    )
}

fn body() -> Vec<u8> {
    let chunk = |length: usize, signature: &str| {
        let mut chunk = format!("{length:x};chunk-signature={signature}\r\n").into_bytes();
        chunk.extend(vec![b'a'; length]);
        chunk.extend(b"\r\n");
        chunk
    };
    [
        chunk(65_536, "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648"),
        chunk(1_024, "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497"),
        chunk(0, "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9"),
    ]
    .concat()
}

#[test]
fn chunks_are_signed_again_however_they_are_cut() {
    let sent = body();
    assert_eq!(sent.len(), 66_824);
    for cut in [1, 7, 85, 4_096, 100_000] {
        let (signature, same) = streaming().again(S3_KEY, S3_KEY).expect("signed");
        assert_eq!(signature, SEED);
        let (_, other) = streaming().again(S3_KEY, "another key").expect("signed");
        let (mut same, mut other) = (same.expect("chunks"), other.expect("chunks"));
        let (mut made, mut changed) = (Vec::new(), Vec::new());
        for part in sent.chunks(cut) {
            made.extend(same.feed(part).expect("a chunk"));
            changed.extend(other.feed(part).expect("a chunk"));
        }
        same.finish().expect("the last chunk came");
        assert!(made == sent, "the same key signs the same");
        assert!(changed != sent && changed.len() == sent.len());
    }
}

#[test]
fn a_chunk_that_was_changed_is_refused() {
    let rechunk = || streaming().again(S3_KEY, "k").expect("signed").1.expect("chunks");
    let mut changed = body();
    changed[100] = b'b';
    assert_eq!(rechunk().feed(&changed), Err(chunks::ChunkFault::Mismatch));
    let mut short = rechunk();
    short.feed(&body()[..70_000.min(body().len() - 10)]).expect("chunks");
    assert_eq!(short.finish(), Err(chunks::ChunkFault::Short));
    assert_eq!(rechunk().feed(b"zz;chunk-signature=\r\n"), Err(chunks::ChunkFault::Malformed));
    assert_eq!(rechunk().feed(&[b'a'; 300]), Err(chunks::ChunkFault::Malformed));
    assert!(matches!(rechunk().feed(b"fffffff;chunk-signature=00\r\n"), Err(chunks::ChunkFault::Long { .. })));
    assert_eq!(rechunk().feed(&[body(), b"0".to_vec()].concat()), Err(chunks::ChunkFault::Malformed));
}

#[test]
fn what_cannot_be_signed_again_says_why() {
    let base = |names: &str, date: &str| {
        Case::of(Method::GET, "/", "h", &[("x-amz-date", date)]).signed(SUITE_SCOPE, names, &"0".repeat(64))
    };
    assert_eq!(base("host;x-amz-date", "20150830T123600Z").again("a", "b").expect_err("refused"), Unsignable::Mismatch);
    let refused = |case: Case| case.again("a", "b").expect_err("refused");
    assert_eq!(refused(base("x-amz-date", "20150830T123600Z")), Unsignable::Malformed("SignedHeaders"));
    assert_eq!(refused(base("host", "20160830T123600Z")), Unsignable::Malformed("x-amz-date"));
    let mut trailing = streaming();
    trailing.headers[2].1 = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER".to_owned();
    assert!(matches!(refused(trailing), Unsignable::Streaming(_)));
    let mut bare = HeaderMap::new();
    bare.insert(AUTHORIZATION, HeaderValue::from_static("Bearer x"));
    assert_eq!(Signed::read("/", &bare), Ok(None));
    bare.insert(AUTHORIZATION, HeaderValue::from_static("AWS4-HMAC-SHA256 Credential=x"));
    assert_eq!(Signed::read("/", &bare).expect_err("refused"), Unsignable::Lacks("x-amz-date"));
}
