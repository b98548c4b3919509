//! What the SSH door asks of the house: keys, grants, and git itself.

use std::sync::Arc;

use async_trait::async_trait;

use crate::model::{App, AppName, Fingerprint, UserName};
use crate::receive::{GitIo, GitRequest, GitService, Receiver};
use crate::ssh::{GitHost, Identity};
use crate::store::Store;

/// Looks everything up anew at each request: a key or grant that was added works at once, one that was taken away no more.
pub struct Host {
    pub store: Store,
    pub receiver: Arc<Receiver>,
}

#[async_trait]
impl GitHost for Host {
    async fn user_of(&self, key: &Fingerprint) -> Result<Option<UserName>, String> {
        let found = self.store.find_key(key).await.map_err(|e| e.to_string())?;
        Ok(found.map(|key| key.user))
    }

    async fn authorize(&self, who: &Identity, app: &AppName, _service: GitService) -> Result<App, String> {
        let broken = |error| {
            tracing::error!(user = %who.user, %app, %error, "the store does not answer");
            "the server cannot look up its apps: try again, or tell the operator".to_owned()
        };
        // a key that was taken away during the connection is refused at its next request
        let still = self.store.find_key(&who.key).await.map_err(broken)?.is_some_and(|k| k.user == who.user);
        let may = still && self.store.may(&who.user, app).await.map_err(broken)?;
        match self.store.app(app).await.map_err(broken)? {
            Some(app) if may => Ok(app),
            // one sentence for both, so that nobody learns which apps there are
            _ => Err(format!(
                "there is no app {app} that {} may use\nhint: on the server: lemnos apps create {app}; lemnos apps grant {app} {}",
                who.user, who.user
            )),
        }
    }

    async fn serve(&self, request: GitRequest, io: GitIo) -> u32 {
        self.receiver.serve(request, io).await
    }

    fn registration_hint(&self) -> String {
        "register one on the server: lemnos keys add USER FILE".to_owned()
    }
}
