//! Certificates for tests of TLS, as `NAME.pem` and `NAME.key`: of our authority `ca` there are `server`, `client` and
//! `expired`, of another one, `other`, there is `stranger`.

use std::path::Path;
use std::process::Command;

const SCRIPT: &str = r"
authority() { openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=$1 -keyout $1.key -out $1.pem; }
leaf() { # NAME AUTHORITY FROM UNTIL
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=$1 -keyout $1.key -out $1.csr
  printf 'subjectAltName=DNS:buildkitd.test,IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n' >$1.ext
  mkdir -p db-$1; : >db-$1/index.txt; echo 01 >db-$1/serial
  printf '[ca]\ndefault_ca=d\n[d]\ndatabase=db-'$1'/index.txt\nserial=db-'$1'/serial\nnew_certs_dir=db-'$1'\ndefault_md=sha256\npolicy=p\n[p]\ncommonName=supplied\n' >$1.cnf
  openssl ca -batch -notext -config $1.cnf -cert $2.pem -keyfile $2.key -in $1.csr -out $1.pem -extfile $1.ext -startdate $3 -enddate $4; }
authority ca; authority other
leaf server ca 20200101000000Z 20991231000000Z
leaf client ca 20200101000000Z 20991231000000Z
leaf expired ca 20200101000000Z 20210101000000Z
leaf stranger other 20200101000000Z 20991231000000Z
";

/// Makes all of them in the directory `dir`.
pub fn make(dir: &Path) {
    let made = Command::new("bash").args(["-euc", SCRIPT]).current_dir(dir).output().unwrap();
    assert!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr));
}
