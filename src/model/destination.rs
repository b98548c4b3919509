//! Further names of images, in other registries than the app's own: where the operator lets pushes put them.

use super::{ImageName, RegistryPlace};

/// The operator's list. The default allows none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Destinations {
    listed: Vec<RegistryPlace>,
    /// Where images of apps are put that have no name of their own: what lies there is some app's, or will be.
    apps: Option<RegistryPlace>,
}

impl Destinations {
    pub fn new(listed: Vec<RegistryPlace>, apps: Option<RegistryPlace>) -> Self {
        Self { listed, apps }
    }

    /// Whether a push may name it though it is neither its app's image nor below that.
    pub fn allow(&self, image: &ImageName) -> bool {
        let covers = |place: &RegistryPlace| place.covers(image.host(), image.path());
        self.listed.iter().any(covers) && !self.apps.as_ref().is_some_and(covers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_listed_is_allowed_but_not_where_apps_have_theirs() {
        let place = |text: &str| text.parse::<RegistryPlace>().unwrap();
        let listed = vec![place("mirror.example.com"), place("ghcr.io/team"), place("localhost:5000")];
        let some = Destinations::new(listed, Some(place("localhost:5000/apps")));
        let allow = |text: &str| some.allow(&text.parse().unwrap());
        assert!(allow("mirror.example.com/a/b") && allow("ghcr.io/team") && allow("ghcr.io/team/shop"));
        assert!(!allow("ghcr.io/teams/shop") && !allow("mirror.example.com:444/a"));
        assert!(allow("localhost:5000/else") && !allow("127.0.0.1:5000/apps/other"));
        assert!(!Destinations::default().allow(&"mirror.example.com/a".parse().unwrap()));
    }
}
