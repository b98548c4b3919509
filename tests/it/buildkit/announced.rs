//! Which services a session has, and that its builder takes no name twice.

use std::collections::BTreeSet;
use std::sync::Arc;

use lemnos::buildkit::session::exporter::{Built, ExportChooser};
use lemnos::buildkit::session::filesend::Export;
use lemnos::buildkit::session::policy::{Judgement, SourceJudge, SourceQuestion};
use lemnos::buildkit::session::secrets::Secrets;
use lemnos::buildkit::session::ssh::Agent;
use lemnos::buildkit::{DockerConfig, Exporter, Session, SessionError};
use lemnos_proto::content::content_client::ContentClient;
use lemnos_proto::content::{
    AbortRequest, DeleteContentRequest, InfoRequest, ListContentRequest, ListStatusesRequest,
    ReadContentRequest, StatusRequest, UpdateRequest,
};
use lemnos_proto::exporter::exporter_client::ExporterClient;
use lemnos_proto::exporter::{FinalizeExportRequest, FindExportersRequest};
use lemnos_proto::policysession::CheckPolicyRequest;
use lemnos_proto::policysession::policy_verifier_client::PolicyVerifierClient;
use lemnos_proto::secrets::secrets_client::SecretsClient;
use lemnos_proto::session::auth_client::AuthClient;
use lemnos_proto::session::file_send_client::FileSendClient;
use lemnos_proto::session::file_sync_client::FileSyncClient;
use lemnos_proto::sshforward::ssh_client::SshClient;
use lemnos_proto::upload::upload_client::UploadClient;
use tokio_stream::empty;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_health::pb::health_client::HealthClient;

use super::served::serve;

/// Calls every method that any session has; those that are served.
async fn served(channel: Channel) -> BTreeSet<&'static str> {
    let mut served = BTreeSet::new();
    let mut note = |method, result: Result<(), Status>| {
        if result.is_ok_and(|()| true) {
            served.insert(method);
        }
    };
    /// A refusal is an answer of the service too.
    async fn there<T>(call: impl Future<Output = Result<T, Status>>) -> Result<(), Status> {
        match call.await {
            Err(status) if status.code() == Code::Unimplemented && status.message().is_empty() => Err(status),
            _ => Ok(()),
        }
    }
    let mut health = HealthClient::new(channel.clone());
    note(
        "/grpc.health.v1.Health/Check",
        there(health.check(tonic_health::pb::HealthCheckRequest::default())).await,
    );
    note(
        "/grpc.health.v1.Health/Watch",
        there(health.watch(tonic_health::pb::HealthCheckRequest::default())).await,
    );
    let mut sync = FileSyncClient::new(channel.clone());
    note("/moby.filesync.v1.FileSync/DiffCopy", there(sync.diff_copy(empty())).await);
    let mut send = FileSendClient::new(channel.clone());
    note("/moby.filesync.v1.FileSend/DiffCopy", there(send.diff_copy(empty())).await);
    let mut auth = AuthClient::new(channel.clone());
    note(
        "/moby.filesync.v1.Auth/Credentials",
        there(auth.credentials(lemnos_proto::session::CredentialsRequest::default())).await,
    );
    note(
        "/moby.filesync.v1.Auth/FetchToken",
        there(auth.fetch_token(lemnos_proto::session::FetchTokenRequest::default())).await,
    );
    note(
        "/moby.filesync.v1.Auth/GetTokenAuthority",
        there(auth.get_token_authority(lemnos_proto::session::GetTokenAuthorityRequest::default())).await,
    );
    note(
        "/moby.filesync.v1.Auth/VerifyTokenAuthority",
        there(auth.verify_token_authority(lemnos_proto::session::VerifyTokenAuthorityRequest::default()))
            .await,
    );
    let mut secrets = SecretsClient::new(channel.clone());
    note(
        "/moby.buildkit.secrets.v1.Secrets/GetSecret",
        there(secrets.get_secret(lemnos_proto::secrets::GetSecretRequest::default())).await,
    );
    let mut ssh = SshClient::new(channel.clone());
    note(
        "/moby.sshforward.v1.SSH/CheckAgent",
        there(ssh.check_agent(lemnos_proto::sshforward::CheckAgentRequest::default())).await,
    );
    note("/moby.sshforward.v1.SSH/ForwardAgent", there(ssh.forward_agent(empty())).await);
    let mut upload = UploadClient::new(channel.clone());
    note("/moby.upload.v1.Upload/Pull", there(upload.pull(empty())).await);
    let mut policy = PolicyVerifierClient::new(channel.clone());
    note(
        "/moby.buildkit.v1.sourcepolicy.policysession.PolicyVerifier/CheckPolicy",
        there(policy.check_policy(CheckPolicyRequest::default())).await,
    );
    let mut exporter = ExporterClient::new(channel.clone());
    note(
        "/moby.exporter.v1.Exporter/FindExporters",
        there(exporter.find_exporters(FindExportersRequest::default())).await,
    );
    note(
        "/moby.exporter.v1.Exporter/FinalizeExport",
        there(exporter.finalize_export(FinalizeExportRequest::default())).await,
    );
    let mut content = ContentClient::new(channel);
    note("/containerd.services.content.v1.Content/Info", there(content.info(InfoRequest::default())).await);
    note(
        "/containerd.services.content.v1.Content/Update",
        there(content.update(UpdateRequest::default())).await,
    );
    note(
        "/containerd.services.content.v1.Content/List",
        there(content.list(ListContentRequest::default())).await,
    );
    note(
        "/containerd.services.content.v1.Content/Delete",
        there(content.delete(DeleteContentRequest::default())).await,
    );
    note(
        "/containerd.services.content.v1.Content/Read",
        there(content.read(ReadContentRequest::default())).await,
    );
    note(
        "/containerd.services.content.v1.Content/Status",
        there(content.status(StatusRequest::default())).await,
    );
    note(
        "/containerd.services.content.v1.Content/ListStatuses",
        there(content.list_statuses(ListStatusesRequest::default())).await,
    );
    note("/containerd.services.content.v1.Content/Write", there(content.write(empty())).await);
    note(
        "/containerd.services.content.v1.Content/Abort",
        there(content.abort(AbortRequest::default())).await,
    );
    served
}

struct Lenient;

#[async_trait::async_trait]
impl SourceJudge for Lenient {
    async fn judge(&self, _: SourceQuestion) -> Result<Judgement, String> {
        Ok(Judgement::Allow)
    }
}

#[async_trait::async_trait]
impl ExportChooser for Lenient {
    async fn choose(&self, _: Built) -> Result<Vec<Exporter>, String> {
        Ok(Vec::new())
    }
}

#[tokio::test]
async fn what_is_announced_is_served_and_the_other_way_round() {
    let dir = tempfile::tempdir().unwrap();
    let config = || Arc::new(DockerConfig::parse(br#"{"auths":{"":{"auth":"YTpi"}}}"#).unwrap());
    let new = || Session::builder("app:main");
    let all = new()
        .local_dir("context", dir.path())
        .auth(config())
        .secret_value("s", "x")
        .ssh("default", Agent::socket(dir.path()))
        .export(0, Export::dir(dir.path()))
        .upload("u", tokio::io::empty())
        .judge(Arc::new(Lenient))
        .chooser(Arc::new(Lenient))
        .local_cache(dir.path().to_str().unwrap());
    for (builder, count) in [
        (new(), 2),
        (new().local_dir("context", dir.path()), 3),
        (new().auth(config()), 6),
        (new().secret_value("s", "x"), 3),
        (new().ssh("default", Agent::socket(dir.path())), 4),
        (new().export(0, Export::dir(dir.path())), 3),
        (new().upload("u", tokio::io::empty()), 3),
        (new().local_cache(dir.path().to_str().unwrap()), 11),
        (new().judge(Arc::new(Lenient)), 3),
        (new().chooser(Arc::new(Lenient)), 4),
        (all, 24),
    ] {
        let session = serve(builder.build().unwrap()).await;
        let announced: BTreeSet<String> = session
            .headers
            .get_all("x-docker-expose-session-grpc-method")
            .iter()
            .map(|method| method.to_str().unwrap().to_owned())
            .collect();
        let served = served(session.channel.clone()).await;
        assert_eq!(announced.len(), count, "{announced:?}");
        assert_eq!(announced.iter().map(String::as_str).collect::<BTreeSet<_>>(), served);
    }
}

#[test]
fn no_name_is_taken_twice() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let new = || Session::builder("k");
    let duplicate = |what, name: &str| SessionError::Duplicate { what, name: name.into() };
    let config = || Arc::new(DockerConfig::parse(b"{}").unwrap());
    let export = || Export::dir(path);
    for (builder, want) in [
        (new().local_dir("a", path).local_dir("a", path), duplicate("directories", "a")),
        (new().export(1, export()).export(1, export()), duplicate("exports", "1")),
        (new().ssh("x", Agent::socket(path)).ssh("x", Agent::socket(path)), duplicate("SSH agents", "x")),
        (new().upload("u", tokio::io::empty()).upload("u", tokio::io::empty()), duplicate("uploads", "u")),
        (new().oci_layout("o", path).oci_layout("o", path), duplicate("content stores", "oci:o")),
        (new().judge(Arc::new(Lenient)).judge(Arc::new(Lenient)), SessionError::Twice("who judges sources")),
        (
            new().chooser(Arc::new(Lenient)).chooser(Arc::new(Lenient)),
            SessionError::Twice("who chooses exporters"),
        ),
        (new().auth(config()).auth(config()), SessionError::Twice("who knows credentials")),
        (
            new().secret_value("s", "").secrets(Arc::new(Secrets::default())),
            SessionError::Twice("who knows secrets"),
        ),
        (
            new().secret_value("s", "").secret_value("s", ""),
            SessionError::Secret(lemnos::buildkit::session::secrets::SecretError::Duplicate("s".into())),
        ),
        (Session::builder("").local_dir("context", path), SessionError::NoSharedKey),
        (new().upload("a/b", tokio::io::empty()), SessionError::UploadName("a/b".into())),
    ] {
        assert_eq!(builder.build().unwrap_err(), want);
    }
    // the first mistake is told
    let two = new().upload("", tokio::io::empty()).local_dir("a", path).local_dir("a", path);
    assert_eq!(two.build().unwrap_err(), SessionError::UploadName(String::new()));
    new().local_dir("a", path).local_dir("b", path).export(0, export()).export(1, export()).build().unwrap();
}
