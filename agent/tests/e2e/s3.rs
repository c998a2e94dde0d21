//! Templates in an object store that speaks S3: a real server program, if there is one.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::common::{Agent, MIB, Nbd, Pair, noise, until};

/// A server on loopback, which ends with this value.
struct Server {
    child: Child,
    endpoint: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where `cargo xtask test` installs it.
fn program() -> PathBuf {
    let agent = PathBuf::from(env!("CARGO_BIN_EXE_vgship"));
    let target = agent.parent().and_then(std::path::Path::parent).unwrap();
    target.join("tools/moto/bin/moto_server")
}

/// Starts the server at a port that the system picks; `None` where there is none.
fn server() -> Option<Server> {
    let program = program();
    if !program.exists() {
        println!("skipped: {} is not there; cargo xtask test installs it", program.display());
        return None;
    }
    let mut child = Command::new(program)
        .args(["-H", "127.0.0.1", "-p", "0"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let at = lines.find_map(|line| Some(line.split_once("http://")?.1.trim().to_owned())).unwrap();
    std::thread::spawn(move || lines.for_each(drop));
    Some(Server { child, endpoint: format!("http://{}", at.trim_end_matches('/')) })
}

/// Asks the server over HTTP to make a bucket.
fn make_bucket(server: &Server) {
    use std::io::{Read, Write};
    let address = server.endpoint.strip_prefix("http://").unwrap();
    until("the server answers", || std::net::TcpStream::connect(address).is_ok());
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    write!(
        stream,
        "PUT /templates HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

fn with_credentials(agent: &mut Agent, server: &Server) {
    for (name, value) in [
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ENDPOINT_URL", server.endpoint.as_str()),
        ("AWS_ALLOW_HTTP", "true"),
    ] {
        agent.set_env(name, value);
    }
}

/// Goal: templates are made in, copied to, proven in and used from a bucket.
#[test]
fn a_bucket_is_a_store_of_templates() {
    let Some(server) = server() else { return };
    make_bucket(&server);
    let mut pair = Pair::new(&[("data", 4 * MIB)], &[]);
    with_credentials(&mut pair.replica, &server);
    pair.replica.stop();
    pair.replica.start();
    pair.source.wait("in-sync");
    pair.open("data").write(0, &noise(1, 4 * MIB)).unwrap();
    pair.source.ok(&["snapshot", "create", "g", "base"]);
    let base = std::fs::read(pair.source_image("data")).unwrap();
    let url = "s3://templates/site/one";
    let agent = &pair.replica;
    agent.ok(&["template", "create", "direct", "--from", "g@base", "--store", url]);
    agent
        .run(&["template", "create", "direct", "--from", "g@base", "--store", url])
        .expect(3, &["direct"]);
    agent.ok(&["template", "create", "local", "--from", "g@base"]);
    let pushed = agent.json(&["template", "push", "local", "--store", url]);
    assert!(pushed["stored_bytes"].as_u64() >= Some(4 * MIB), "another key's: {pushed}");
    let again = agent.json(&["template", "push", "local", "--store", url]);
    assert_eq!(again["stored_bytes"], 0);
    for name in ["direct", "local"] {
        agent.ok(&["template", "verify", name, "--store", url]);
        agent.ok(&["template", "verify", name, "--store", url, "--blind"]);
    }
    agent.ok(&["template", "delete", "local"]);
    agent.ok(&["template", "pull", "local", "--store", url]);
    agent.ok(&["template", "verify", "local"]);
    agent.ok(&["env", "create", "e", "--from", "direct", "--store", url, "--nbd"]);
    let mut env = Nbd::open_export(&agent.nbd_socket(), "env/e/g/data").unwrap();
    assert!(env.read(0, 4 << 20).unwrap() == base);
    drop(env);
    agent.ok(&["env", "destroy", "e"]);
    agent.ok(&["template", "delete", "direct", "--store", url]);
    for _ in 0..2 {
        agent.ok(&["template", "gc", "--store", url]);
    }
    agent.ok(&["template", "verify", "local", "--store", url]);
    let missing = agent.run(&["template", "list", "--store", "s3://nobucket/x"]);
    assert_eq!(missing.code, 1, "{missing:?}");
}
