//! Where `lemnos build` puts an image: `HOST[:PORT]/PATH[:TAG]`.

use std::str::FromStr;

use crate::model::{ImageName, Invalid, Tag};

/// One image reference of the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub image: ImageName,
    pub tag: Tag,
}

impl FromStr for Target {
    type Err = Invalid;

    /// Without a tag it is `latest`, as everywhere.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (image, tag) = match text.rsplit_once(':') {
            // a colon before the last slash belongs to the port
            Some((image, tag)) if !tag.contains('/') => (image, tag),
            _ => (text, "latest"),
        };
        Ok(Self { image: image.parse()?, tag: tag.parse()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_and_ports() {
        let parse = |text: &str| text.parse::<Target>().map(|t| format!("{} {}", t.image, t.tag));
        assert_eq!(parse("localhost:5000/shop:mine").unwrap(), "localhost:5000/shop mine");
        assert_eq!(parse("localhost:5000/shop").unwrap(), "localhost:5000/shop latest");
        assert!(parse("shop:mine").unwrap_err().allowed.contains("host written out"));
        assert!(parse("localhost:5000/Shop").is_err());
    }
}
