//! `curl -L`, recorded from 7.88.1, and browsers, whose headers are those of Firefox 145 and Chrome
//! 142 for a link that is clicked (on a loopback address, to which they offer all encodings).

use std::net::SocketAddr;

use super::super::support::client::Answer;
use super::super::support::origin::Program;
use super::{
    Cache, FULL, INCREMENTAL, PROGRAMS, SHORT_FULL, SHORT_INCREMENTAL, Stage, Wire, assert_archive,
    assert_part, full_name, location, new_name,
};

/// What stands between the host and the empty line.
const CURL: &str = "User-Agent: curl/7.88.1\r\nAccept: */*\r\n";

const FIREFOX: &str = "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 \
    Firefox/145.0\r\nAccept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
    Accept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n\
    Connection: keep-alive\r\nUpgrade-Insecure-Requests: 1\r\nSec-Fetch-Dest: document\r\n\
    Sec-Fetch-Mode: navigate\r\nSec-Fetch-Site: none\r\nSec-Fetch-User: ?1\r\n\
    Priority: u=0, i\r\n";

const CHROME: &str = "Connection: keep-alive\r\n\
    sec-ch-ua: \"Chromium\";v=\"142\", \"Google Chrome\";v=\"142\", \"Not_A Brand\";v=\"99\"\r\n\
    sec-ch-ua-mobile: ?0\r\nsec-ch-ua-platform: \"Linux\"\r\nUpgrade-Insecure-Requests: 1\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
    Chrome/142.0.0.0 Safari/537.36\r\nAccept: text/html,application/xhtml+xml,\
    application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,\
    application/signed-exchange;v=b3;q=0.7\r\nSec-Fetch-Site: none\r\nSec-Fetch-Mode: navigate\r\n\
    Sec-Fetch-User: ?1\r\nSec-Fetch-Dest: document\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-US,en;q=0.9\r\n";

fn get(path: &str, to: SocketAddr, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {to}\r\n{headers}\r\n")
}

async fn follow(wire: &mut Wire, form: &str, to: SocketAddr, headers: &str) -> (Answer, String) {
    let first = wire.ask(&get(form, to, headers)).await;
    let path = location(&first);
    (wire.ask(&get(&path, to, headers)).await, path)
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_and_browsers_follow_the_short_names() {
    for stage in Stage::each(&PROGRAMS).await {
        let to = stage.edge.address;
        for headers in [CURL, FIREFOX, CHROME] {
            let mut wire = stage.wire().await;
            for (form, name, content) in
                [(SHORT_FULL, full_name(), FULL), (SHORT_INCREMENTAL, new_name(), INCREMENTAL)]
            {
                let (answer, path) = follow(&mut wire, form, to, headers).await;
                assert_archive(&answer, content, &stage.what);
                assert_eq!(path, format!("/{name}"), "its file gets this name");
                // Saved, and neither shown nor unpacked.
                assert_eq!(answer.header("content-type"), Some("application/zstd"));
            }
        }
        stage.assert_from_cache_where_warm();
    }
}

/// `curl -L -C -` sends its range with both requests, in this order.
#[tokio::test(flavor = "multi_thread")]
async fn curl_goes_on_by_the_short_name() {
    for (program, cache) in [(Program::Sidecar, Cache::Off), (Program::Agave, Cache::Warm)] {
        let stage = Stage::new(program, cache).await;
        let to = stage.edge.address;
        let half = FULL.len / 2;
        let headers = format!("Range: bytes={half}-\r\n{CURL}");
        let mut wire = stage.wire().await;
        let (answer, _) = follow(&mut wire, SHORT_FULL, to, &headers).await;
        assert_part(&answer, half, FULL.len, FULL.len);
        assert!(FULL.matches(half, &answer.body), "{}", stage.what);
        stage.assert_from_cache_where_warm();
    }
}
