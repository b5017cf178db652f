//! `compose.yaml` starts the services of the README, in versions that the server supports.

use clap::CommandFactory;
use reference_server::options::Cli;
use serde_yaml::Value;
use url::Url;

use crate::readme;

/// The version number at the start of a text, such as the tag of an image.
fn version(text: &str) -> Vec<u32> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    let numbers = text[..end.unwrap_or(text.len())].split('.');
    numbers.map(|number| number.parse().expect(text)).collect()
}

/// The value that the README gives a variable, after `docker compose up`.
fn given(readme: &str, variable: &str) -> Url {
    let (_, after) = readme.split_once("docker compose up").expect("it is named");
    let (_, value) = after
        .split_once(&format!("{variable}="))
        .unwrap_or_else(|| panic!("it says what {variable} is"));
    let end = value.find(|c: char| c.is_whitespace() || c == '`');
    let value = &value[..end.expect("it ends")];
    value.parse().expect(value)
}

#[test]
fn the_services_of_compose_yaml_are_those_that_the_readme_s_variables_lead_to() {
    let readme = readme::section("Durable, and several processes");
    let file = std::fs::read_to_string(readme::repository().join("compose.yaml"));
    let compose: Value = serde_yaml::from_str(&file.expect("it is there")).expect("YAML");
    let command = Cli::command();
    for (service, product, variable, port) in [
        ("postgres", "PostgreSQL", "DATABASE_URL", 5432),
        ("redis", "Redis", "REDIS_URL", 6379),
    ] {
        let is_read = command.get_arguments().any(|argument| {
            let name = argument.get_env().and_then(|name| name.to_str());
            name == Some(variable)
        });
        assert!(is_read, "the server reads {variable}");
        let described = &compose["services"][service];
        let url = given(&readme, variable);
        let host = url.host_str().expect("a host");
        let published = format!("{host}:{}:{port}", url.port().unwrap_or(port));
        assert_eq!(described["ports"][0], published.as_str(), "{service}");

        let image = described["image"].as_str().expect("an image");
        let (name, tag) = image.split_once(':').expect("a version of it");
        assert_eq!(name, service);
        let oldest = readme.split_once(&format!("{product} ("));
        let (_, oldest) = oldest.expect("the oldest version that will do");
        assert!(version(tag) >= version(oldest), "{image}");
        if service == "postgres" {
            let environment = &described["environment"];
            assert_eq!(environment["POSTGRES_USER"], url.username());
            let password = url.password().expect("a password");
            assert_eq!(environment["POSTGRES_PASSWORD"], password);
            // By default, the image names the database after the user.
            assert!(environment["POSTGRES_DB"].is_null());
            assert_eq!(url.path(), format!("/{}", url.username()));
        }
    }
}
