//! A Postgres server of one's own: Debian's, in a temporary folder, reached
//! through a socket there, or through TLS.
//!
//! A shell keeps the server, as the user `postgres` where this process is root,
//! which Postgres refuses. It does what it is told on its standard input, and
//! when that closes, because the server was dropped or this process has ended
//! in whatever way, it ends the server and removes the folder.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// Waits for the server with pg_isready, and starts it again where it ended
/// because those that a killed one left behind were not gone yet.
const KEEPER: &str = r#"
set -eu
umask 077
trap '' INT HUP TERM PIPE
bin=$1
pid=
port=5432
options="-c listen_addresses="
dir=$(mktemp -d "${TMPDIR:-/tmp}/layerd-postgres.XXXXXX")
trap 'end QUIT; rm -rf "$dir"' EXIT
end() {
  [ -z "$pid" ] || kill "-$1" "$pid" 2>/dev/null || :
  [ -z "$pid" ] || wait "$pid" 2>/dev/null || :
  pid=
}
start() {
  "$bin/postgres" -D "$dir/data" -k "$dir" -p "$port" -c fsync=off -c max_connections=400 -c shared_buffers=32MB "$@" </dev/null >>"$dir/log" 2>&1 &
  pid=$!
}
if ! "$bin/initdb" -D "$dir/data" -U postgres -A trust -E UTF8 --locale=C --no-sync </dev/null >"$dir/log" 2>&1; then
  cat "$dir/log" >&2
  exit 1
fi
echo "$dir"
while read -r word rest; do
  case $word in
    tls)
      port=$rest
      options="-c listen_addresses=127.0.0.1 -c ssl=on -c ssl_cert_file=$dir/server.pem -c ssl_key_file=$dir/server.key"
      openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=postgres \
        -addext basicConstraints=critical,CA:FALSE -addext subjectAltName=DNS:localhost,IP:127.0.0.1 \
        -keyout "$dir/server.key" -out "$dir/server.pem" </dev/null >>"$dir/log" 2>&1 ;;
    start)
      start $options
      tries=0
      until "$bin/pg_isready" -q -h "$dir" -p "$port"; do
        tries=$((tries + 1))
        [ "$tries" -lt 600 ] || { cat "$dir/log" >&2; break 2; }
        kill -0 "$pid" 2>/dev/null || start $options
        sleep 0.05
      done ;;
    kill) end KILL ;;
    stop) end INT ;;
  esac
  echo "$word"
done
"#;

/// A running server, until it is dropped.
pub struct Postgres {
    keeper: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    bin: PathBuf,
    folder: PathBuf,
    port: u16,
}

impl Postgres {
    /// Starts one, on a socket in its folder.
    pub fn start() -> Self {
        let mut server = Self::keep();
        server.order("start");
        server
    }

    /// Starts one that speaks TLS, on a port of 127.0.0.1.
    pub fn start_with_tls() -> Self {
        let mut server = Self::keep();
        let free = TcpListener::bind(("127.0.0.1", 0)).and_then(|free| free.local_addr());
        server.port = free.expect("a free port").port();
        server.order(&format!("tls {}", server.port));
        server.order("start");
        server
    }

    fn keep() -> Self {
        let bin = programs();
        let mut command = if rustix::process::geteuid().is_root() {
            let mut command = Command::new("setpriv");
            command.args([
                "--reuid=postgres",
                "--regid=postgres",
                "--clear-groups",
                "--",
            ]);
            command.arg("sh");
            command
        } else {
            Command::new("sh")
        };
        let mut keeper = command
            .args(["-c", KEEPER, "keeper"])
            .arg(&bin)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell");
        let orders = keeper.stdin.take();
        let mut answers = BufReader::new(keeper.stdout.take().expect("its output"));
        let mut folder = String::new();
        answers.read_line(&mut folder).expect("a folder");
        assert!(!folder.is_empty(), "initdb failed: see above");
        Self {
            keeper,
            orders,
            answers,
            bin,
            folder: PathBuf::from(folder.trim_end()),
            port: 5432,
        }
    }

    /// Makes an empty database, and gives its URL.
    pub fn database(&self, name: &str) -> String {
        let made = Command::new(self.bin.join("createdb"))
            .args(["-U", "postgres", "-h"])
            .arg(&self.folder)
            .args(["-p", &self.port.to_string(), name])
            .status();
        assert!(made.is_ok_and(|made| made.success()), "no database {name}");
        self.url(name)
    }

    /// The URL of a database, by its socket.
    pub fn url(&self, name: &str) -> String {
        let (port, folder) = (self.port, self.folder.display());
        format!("postgres://postgres@localhost:{port}/{name}?host={folder}")
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.join(format!(".s.PGSQL.{}", self.port))
    }

    /// The URL of a database by its port, with TLS.
    pub fn tls_url(&self, name: &str) -> String {
        let (port, certificate) = (self.port, self.certificate());
        let certificate = certificate.display();
        format!(
            "postgres://postgres@127.0.0.1:{port}/{name}?sslmode=verify-full&sslrootcert={certificate}"
        )
    }

    /// The certificate of a server with TLS, which vouches for itself.
    pub fn certificate(&self) -> PathBuf {
        self.folder.join("server.pem")
    }

    /// SIGKILL, and waits for its end.
    pub fn kill(&mut self) {
        self.order("kill");
    }

    /// Ends it in good order, whoever is connected.
    pub fn stop(&mut self) {
        self.order("stop");
    }

    /// Starts it again.
    pub fn restart(&mut self) {
        self.order("start");
    }

    fn order(&mut self, order: &str) {
        let orders = self.orders.as_mut().expect("it is not dropped");
        writeln!(orders, "{order}").expect("the keeper listens");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("an answer");
        assert!(
            order.starts_with(answer.trim_end()) && !answer.is_empty(),
            "{order}: see above"
        );
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        drop(self.orders.take());
        let _ = self.keeper.wait();
    }
}

/// Where the server's programs are: the newest that Debian has installed.
fn programs() -> PathBuf {
    let installed = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten();
    let newest = installed
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .filter(|bin| bin.join("initdb").exists())
        .max_by_key(|bin| {
            let version = bin.parent().and_then(Path::file_name);
            version.and_then(|version| version.to_str()?.parse::<u32>().ok())
        });
    newest.unwrap_or_else(|| {
        panic!("PostgreSQL is missing: run integration/tools/install.sh test, or apt-get install postgresql")
    })
}
