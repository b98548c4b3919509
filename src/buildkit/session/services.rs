//! The services of a session, and the methods to announce: one list, made in one place.
//!
//! Invariant: what is announced is served, and what is served is announced. The daemon calls some methods only where
//! they are announced, and takes the lack of others for an answer.

use lemnos_proto::content::content_server::ContentServer;
use lemnos_proto::exporter::exporter_server::ExporterServer;
use lemnos_proto::policysession::policy_verifier_server::PolicyVerifierServer;
use lemnos_proto::secrets::secrets_server::SecretsServer;
use lemnos_proto::session::auth_server::AuthServer;
use lemnos_proto::sshforward::ssh_server::SshServer;
use lemnos_proto::upload::upload_server::UploadServer;
use tonic::service::{Routes, RoutesBuilder};

use super::Session;
use super::auth::AuthService;
use super::content::ContentService;
use super::exporter::ExporterService;
use super::filesend::{Exports, FileSendServer};
use super::filesync::{self, Patience};
use super::policy::PolicyService;
use super::secrets::SecretService;
use super::ssh::SshService;
use super::upload::UploadService;
use crate::buildkit::connect::MESSAGE_LIMIT;

/// What `session` offers.
pub(super) fn services(session: &Session, patience: Patience) -> (Routes, Vec<&'static str>) {
    let (_, health) = tonic_health::server::health_reporter();
    let mut routes = Routes::builder();
    routes.add_service(health);
    let mut methods = vec!["/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"];
    if !session.dirs.is_empty() {
        let (dirs, transfers) = (session.dirs.clone(), session.transfers.clone());
        routes.add_service(filesync::service_with(dirs, transfers, patience));
        methods.push("/moby.filesync.v1.FileSync/DiffCopy");
    }
    if !session.exports.is_empty() {
        routes.add_service(FileSendServer::new(Exports::new(session.exports.clone(), patience)));
        methods.push("/moby.filesync.v1.FileSend/DiffCopy");
    }
    add_asked(session, patience, &mut routes, &mut methods);
    if !session.stores.is_empty() {
        routes.add_service(
            ContentServer::new(ContentService::new(session.stores.clone(), patience))
                .max_decoding_message_size(MESSAGE_LIMIT)
                .max_encoding_message_size(MESSAGE_LIMIT),
        );
        methods.extend([
            "/containerd.services.content.v1.Content/Info",
            "/containerd.services.content.v1.Content/Update",
            "/containerd.services.content.v1.Content/List",
            "/containerd.services.content.v1.Content/Delete",
            "/containerd.services.content.v1.Content/Read",
            "/containerd.services.content.v1.Content/Status",
            "/containerd.services.content.v1.Content/ListStatuses",
            "/containerd.services.content.v1.Content/Write",
            "/containerd.services.content.v1.Content/Abort",
        ]);
    }
    (routes.routes(), methods)
}

/// The services that steps and sources ask: credentials, secrets, agents, judgements, uploads.
fn add_asked(
    session: &Session,
    patience: Patience,
    routes: &mut RoutesBuilder,
    methods: &mut Vec<&'static str>,
) {
    if let Some(provider) = &session.auth {
        routes.add_service(
            AuthServer::new(AuthService::new(provider.clone()))
                .max_decoding_message_size(MESSAGE_LIMIT)
                .max_encoding_message_size(MESSAGE_LIMIT),
        );
        methods.extend([
            "/moby.filesync.v1.Auth/Credentials",
            "/moby.filesync.v1.Auth/FetchToken",
            "/moby.filesync.v1.Auth/GetTokenAuthority",
            "/moby.filesync.v1.Auth/VerifyTokenAuthority",
        ]);
    }
    if let Some(store) = &session.secrets {
        routes.add_service(SecretsServer::new(SecretService::new(store.clone())));
        methods.push("/moby.buildkit.secrets.v1.Secrets/GetSecret");
    }
    if !session.agents.is_empty() {
        routes.add_service(SshServer::new(SshService::new(session.agents.clone(), patience)));
        methods.extend(["/moby.sshforward.v1.SSH/CheckAgent", "/moby.sshforward.v1.SSH/ForwardAgent"]);
    }
    if let Some(judge) = &session.judge {
        routes.add_service(
            PolicyVerifierServer::new(PolicyService::new(judge.clone()))
                .max_decoding_message_size(MESSAGE_LIMIT)
                .max_encoding_message_size(MESSAGE_LIMIT),
        );
        methods.push("/moby.buildkit.v1.sourcepolicy.policysession.PolicyVerifier/CheckPolicy");
    }
    if let Some(chooser) = &session.chooser {
        routes.add_service(
            ExporterServer::new(ExporterService::new(chooser.clone()))
                .max_decoding_message_size(MESSAGE_LIMIT)
                .max_encoding_message_size(MESSAGE_LIMIT),
        );
        methods.extend([
            "/moby.exporter.v1.Exporter/FindExporters",
            "/moby.exporter.v1.Exporter/FinalizeExport",
        ]);
    }
    if !session.uploads.is_empty() {
        routes.add_service(UploadServer::new(UploadService::new(session.uploads.clone(), patience)));
        methods.push("/moby.upload.v1.Upload/Pull");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_offered_is_announced() {
        let (_, methods) = services(&Session::default(), Patience::default());
        assert_eq!(methods, ["/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"]);
    }
}
