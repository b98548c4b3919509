//! The registry client's view of the stored logins: the store's, opened when they are needed.

use async_trait::async_trait;

use crate::error::Report;
use crate::model::{ImageName, ImagePrefix};
use crate::registry::{Credential, Login, Logins, LoginsUnreadable};
use crate::store::{Store, StoreError, StoredLogin};

/// The user name that says, as in docker's config file, that the secret is an identity token.
const IDENTITY_TOKEN: &str = "<token>";

pub struct KeptLogins {
    store: Store,
    prefix: ImagePrefix,
}

impl KeptLogins {
    pub fn new(store: &Store, prefix: &ImagePrefix) -> Self {
        Self { store: store.clone(), prefix: prefix.clone() }
    }
}

#[async_trait]
impl Logins for KeptLogins {
    async fn of_app(&self, app_id: Option<&str>) -> Result<Vec<Login>, LoginsUnreadable> {
        Ok(self.store.open_logins(app_id).await.map_err(unreadable)?.into_iter().map(login).collect())
    }

    async fn owner(&self, image: &ImageName) -> Result<Option<String>, LoginsUnreadable> {
        let apps = self.store.apps().await.map_err(unreadable)?;
        let owner = apps
            .into_iter()
            .find(|app| app.image(Some(&self.prefix)).is_some_and(|own| own.same_repository(image)));
        match owner {
            Some(app) => Ok(Some(app.id)),
            None => self.store.destination_owner(image).await.map_err(unreadable),
        }
    }

    fn changes(&self) -> u64 {
        self.store.login_changes()
    }
}

fn login(stored: StoredLogin) -> Login {
    let StoredLogin { app_id, place, username, secret } = stored;
    let identity_token = username == IDENTITY_TOKEN;
    let username = if identity_token { String::new() } else { username };
    let credential = Credential { username, secret: secret.expose().to_owned(), identity_token };
    Login { of_app: app_id.is_some(), place, credential }
}

fn unreadable(error: StoreError) -> LoginsUnreadable {
    let report = Report::from(error);
    LoginsUnreadable { cause: report.message, remedy: report.hint.unwrap_or_default() }
}
