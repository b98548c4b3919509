//! What the SSH door asks of the house: keys, grants, and git itself.

use std::sync::Arc;

use async_trait::async_trait;

use crate::admin::{self, Caller, rights};
use crate::error::{Kind, Report};
use crate::model::{Access, App, AppName, Fingerprint, UserName};
use crate::receive::{GitIo, GitRequest, GitService, Receiver};
use crate::ssh::{GitHost, Identity, VerbIo};
use crate::store::Store;

/// Looks everything up anew at each request: a key or grant that was added works at once, one that was taken away no more.
pub struct Host {
    pub store: Store,
    pub receiver: Arc<Receiver>,
    /// For verbs.
    pub context: admin::Context,
}

impl Host {
    /// Who the other end of a connection is at this moment; none when what they logged in with counts no more.
    pub async fn caller(&self, who: &Identity) -> Result<Option<Caller>, Report> {
        let caller = match who.certificate {
            Some(_) => Caller::of_certificate(&self.store, &who.user, &who.key).await?,
            None => Caller::of_key(&self.store, &who.key).await?,
        };
        // a key that changed hands during the connection is another one's now
        Ok(caller.filter(|caller| caller.name().as_ref() == Some(&who.user)))
    }

    async fn app(&self, who: &Identity, app: &AppName, service: GitService) -> Result<App, Report> {
        let caller = self.caller(who).await?.ok_or_else(|| {
            Report::new(Kind::Forbidden, format!("the key {} is no longer registered", who.key))
        })?;
        let access = if service.writes() { Access::Write } else { Access::Read };
        rights::app_access(&self.store, &caller, app, access).await
    }
}

#[async_trait]
impl GitHost for Host {
    async fn user_of(&self, key: &Fingerprint) -> Result<Option<UserName>, String> {
        let caller = Caller::of_key(&self.store, key).await.map_err(|e| e.message)?;
        Ok(caller.and_then(|caller| caller.name()))
    }

    async fn has_user(&self, user: &UserName) -> Result<bool, String> {
        Ok(self.store.user(user).await.map_err(|e| e.to_string())?.is_some())
    }

    async fn authorize(&self, who: &Identity, app: &AppName, service: GitService) -> Result<App, String> {
        self.app(who, app, service).await.map_err(|report| match report.kind {
            Kind::Unavailable | Kind::Internal => {
                tracing::error!(user = %who.user, %app, error = %report.message, "the store does not answer");
                "the server cannot look up its apps: try again, or tell the operator".to_owned()
            }
            _ => match report.hint {
                Some(hint) => format!("{}\nhint: {hint}", report.message),
                None => report.message,
            },
        })
    }

    async fn serve(&self, request: GitRequest, io: GitIo) -> u32 {
        self.receiver.serve(request, io).await
    }

    async fn verb(&self, who: &Identity, words: Vec<String>, io: VerbIo) -> u32 {
        super::desk::run(self, who, words, io).await
    }

    fn registration_hint(&self) -> String {
        "register one on the server: lemnos keys add USER FILE".to_owned()
    }
}
