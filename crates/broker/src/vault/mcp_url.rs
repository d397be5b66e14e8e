//! Addresses of MCP servers as they are compared: scheme and host in lower case, no default port, no slash at the end.

use url::Url;

/// `None` for what is no address of an HTTP service. Query and fragment are kept, name and password are refused.
pub fn normal(text: &str) -> Option<String> {
    Url::parse(text).ok().as_ref().and_then(normal_of)
}

pub fn normal_of(url: &Url) -> Option<String> {
    // The parser has made scheme and host lower case, and left the default port out.
    let plain = matches!(url.scheme(), "http" | "https")
        && url.has_host()
        && url.username().is_empty()
        && url.password().is_none();
    if !plain {
        return None;
    }
    let mut url = url.clone();
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
    let (front, rest) = (&url[..url::Position::AfterPath], &url[url::Position::AfterPath..]);
    Some(format!("{}{rest}", front.trim_end_matches('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_the_same_is_the_same() {
        let wanted = normal("https://mcp.example.com").expect("an address");
        for same in ["HTTPS://MCP.Example.com", "https://mcp.example.com/", "https://mcp.example.com:443/"] {
            assert_eq!(normal(same).as_deref(), Some(wanted.as_str()), "{same}");
        }
        assert_eq!(normal("https://h/a/b/"), normal("https://h:443/a/b"));
        assert_eq!(normal("http://h:80/a?x=1"), normal("http://H/a/?x=1"));
    }

    #[test]
    fn what_differs_stays_different() {
        let all = [
            "https://h/a",
            "https://h/A",
            "http://h/a",
            "https://h:444/a",
            "https://h/a?x",
            "https://h/a/b",
            "https://g/a",
        ];
        let normals: std::collections::HashSet<_> = all.iter().map(|url| normal(url).expect("an address")).collect();
        assert_eq!(normals.len(), all.len());
    }

    #[test]
    fn what_is_no_address_is_none() {
        for bad in ["", "h", "ftp://h/", "file:///etc/passwd", "https://me:pw@h/", "https://me@h/", "mailto:a@b"] {
            assert_eq!(normal(bad), None, "{bad}");
        }
    }
}
