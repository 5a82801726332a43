//! Precedence, errors, files, the prototype's variables, and what is shown of a configuration.

use super::*;

fn pairs(items: &[(&str, &str)]) -> Vec<(String, String)> {
    items.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn load(flags: &[(&str, &str)], environment: &[(&str, &str)]) -> Result<Config, String> {
    let mut raw = RawConfig::layered(&pairs(flags), &pairs(environment), None).map_err(|error| error.to_string())?;
    raw.default_for_command("http.host", "127.0.0.1");
    raw.default_for_command("http.cors", "true");
    Config::from_raw(&raw).map_err(|error| error.to_string())
}

#[track_caller]
fn check_error(flags: &[(&str, &str)], environment: &[(&str, &str)], expected: &str) {
    assert_eq!(load(flags, environment).expect_err("must be refused"), expected);
}

#[test]
fn a_flag_beats_the_environment_which_beats_the_default() {
    let port = |flags: &[(&str, &str)], environment: &[(&str, &str)]| {
        load(flags, environment).expect("valid").http.address.port()
    };
    assert_eq!(port(&[], &[]), 6197);
    assert_eq!(port(&[], &[("API_PORT", "7000")]), 7000);
    assert_eq!(port(&[], &[("API_PORT", "7000"), ("SEQUENCER_HTTP_PORT", "7001")]), 7001);
    assert_eq!(port(&[("http.port", "7002")], &[("SEQUENCER_HTTP_PORT", "7001")]), 7002);
}

#[test]
fn what_does_not_fit_is_named_with_its_source() {
    check_error(&[("http.prot", "1")], &[], "flag: unknown setting `http.prot`; did you mean `http.port`?");
    check_error(&[("http.port", "70000")], &[], "http.port = `70000` (flag): expected a whole number, 0 to 65535");
    check_error(
        &[],
        &[("SEQUENCER_HTTP_PROT", "1")],
        "environment SEQUENCER_HTTP_PROT: unknown setting `SEQUENCER_HTTP_PROT`; did you mean `http.port`?",
    );
    check_error(
        &[("execution.engine-url", "http://10.0.0.2:8551")],
        &[],
        "execution.engine-url = `http://10.0.0.2:8551` is not a loopback address, and plain HTTP shows every block and token on the way: set execution.allow-remote-plaintext when that network is yours",
    );
    check_error(
        &[("block.extra-data", &format!("0x{}", "00".repeat(33)))],
        &[],
        &format!("block.extra-data = `0x{}` (flag): expected 0x and at most 64 hex digits", "00".repeat(33)),
    );
}

/// What shows more than a public endpoint should is off unless somebody asks for it; `dev` does.
#[test]
fn methods_for_insiders_are_off_by_default() {
    let rpc = |flags: &[(&str, &str)]| load(flags, &[]).expect("valid").rpc;
    assert!(!rpc(&[]).debug && !rpc(&[]).pool_content);
    assert!(rpc(&[("rpc.debug", "true")]).debug && rpc(&[("rpc.pool-content", "on")]).pool_content);
    check_error(&[("rpc.debug", "yes")], &[], "rpc.debug = `yes` (flag): expected true or false");
}

#[test]
fn execute_is_where_the_format_has_it_unless_l1_is_another() {
    let address = |flags: &[(&str, &str)]| load(flags, &[]).map(|config| config.l1.execute_address.to_string());
    let (usual, other) = (format!("0x{}12", "0".repeat(38)), format!("0x{}99", "0".repeat(38)));
    assert_eq!(address(&[]), Ok(usual.clone()));
    let remote = ("l1.rpc-url", "http://localhost:8545");
    assert_eq!(address(&[remote, ("l1.execute-address", &other)]), Ok(other.clone()));
    let wrong = format!("l1.execute-address = `{other}`: the embedded L1 has EXECUTE at {usual}");
    check_error(&[("l1.mode", "embedded"), ("l1.execute-address", &other)], &[], &wrong);
    let short = "l1.execute-address = `0x12` (flag): expected an address, 0x and 40 hex digits";
    check_error(&[("l1.execute-address", "0x12")], &[], short);
}

#[test]
fn witnesses_are_kept_where_and_as_far_as_it_is_said() {
    let witness = |flags: &[(&str, &str)]| load(flags, &[]).expect("valid").witness;
    let usual = witness(&[]);
    assert_eq!((usual.dir, usual.keep_behind_blocks, usual.kept_bytes_max), (None, 48, 32 << 30));
    let flags = [("witness.dir", "/w"), ("witness.keep-behind-blocks", "96"), ("witness.kept-bytes-max", "65536")];
    let set = witness(&flags);
    assert_eq!((set.dir, set.keep_behind_blocks, set.kept_bytes_max), (Some(PathBuf::from("/w")), 96, 65_536));
    let error = "witness.keep-behind-blocks = `97` (flag): expected a whole number, 1 to 96";
    check_error(&[("witness.keep-behind-blocks", "97")], &[], error);
    let error = "witness.kept-bytes-max = `65535` (flag): expected a whole number, 64 KiB to 16 TiB";
    check_error(&[("witness.kept-bytes-max", "65535")], &[], error);
}

#[test]
fn a_file_flattens_tables_and_refuses_what_has_no_text() {
    let table: toml::Table =
        "data-dir = 'x'\n[http]\nport = 1\nvhosts = ['a', 'b']\n[block]\ninterval-ms = 5".parse().expect("toml");
    let mut flat = Vec::new();
    flatten("", &table, &mut flat).expect("all values have a text");
    flat.sort();
    let expected = [("block.interval-ms", "5"), ("data-dir", "x"), ("http.port", "1"), ("http.vhosts", "a,b")];
    assert_eq!(flat, pairs(&expected));
    assert!(flatten("", &"a = 1.5".parse().expect("toml"), &mut flat).is_err());
}

/// Every variable of the prototype's README: a value for it, and the setting that it sets.
const PROTOTYPE: &[(&str, &str, &str)] = &[
    ("API_HOST", "10.0.0.1", "http.host"),
    ("API_PORT", "7000", "http.port"),
    ("L1_RPC_URL", "https://l1.example", "l1.rpc-url"),
    ("L1_CHAIN_ID", "61971", "l1.chain-id"),
    ("SEQUENCER_KEY", "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80", "l1.key"),
    ("L2_RPC_URL", "http://localhost:8545", "execution.rpc-url"),
    ("L2_ENGINE_API_PORT", "8552", "execution.engine-port"),
    ("L2_JWT_SECRET", "/etc/sequencer/jwt.hex", "execution.jwt-secret"),
    ("L2_CHAIN_ID", "61972", "l2.chain-id"),
    ("MEMPOOL_MAX_SIZE", "1000", "mempool.transactions-max"),
    ("MEMPOOL_WAL_PATH", "/var/lib/sequencer/wal", "journal.dir"),
    ("BATCH_SIZE_LIMIT", "100000", "settlement.batch-bytes-max"),
    ("BATCH_INTERVAL_MS", "2000", "settlement.batch-age-ms"),
    ("BLOCK_GAS_LIMIT", "30000000", "block.gas-limit"),
    ("STATE_DB_PATH", "/var/lib/sequencer/state", "state.dir"),
    ("METRICS_PORT", "9091", "metrics.port"),
    ("EMERGENCY_HALT", "true", "admin.emergency-halt"),
    ("RATE_LIMIT_PER_SECOND", "100", "limits.requests-per-second"),
];

#[test]
fn every_variable_of_the_prototype_is_read() {
    for (variable, sample, setting) in PROTOTYPE {
        let raw = RawConfig::layered(&[], &pairs(&[(variable, sample)]), None).expect("a good value");
        let set = raw.entries().find(|(_, _, source)| **source == Source::Environment((*variable).to_owned()));
        let shown = set.map(|(name, value, _)| (name, value.into_owned()));
        assert_eq!(shown, Some((*setting, redact::value(setting, sample).into_owned())), "{variable}");
        // Weaker than our own variable of the same setting.
        let own = settings::env_name(setting);
        let both = pairs(&[(&own, sample), (variable, "other")]);
        let raw = RawConfig::layered(&[], &both, None).expect("known names");
        let expected = redact::value(setting, sample);
        assert!(raw.entries().any(|(name, value, _)| name == *setting && value == expected), "{variable}");
        Config::from_raw(&with_host(raw)).unwrap_or_else(|error| panic!("{variable}: {error}"));
    }
    // Nothing beside the README's list.
    let count = SETTINGS.iter().filter(|setting| setting.env_alias.is_some()).count();
    assert_eq!(count, PROTOTYPE.len());
}

fn with_host(mut raw: RawConfig) -> RawConfig {
    raw.default_for_command("http.host", "127.0.0.1");
    raw.default_for_command("http.cors", "false");
    raw
}

#[test]
fn metrics_listen_where_json_rpc_does_unless_told() {
    let address = |flags: &[(&str, &str)]| load(flags, &[]).expect("valid").metrics.address.map(|at| at.to_string());
    assert_eq!(address(&[]).as_deref(), Some("127.0.0.1:9090"));
    assert_eq!(address(&[("http.host", "10.0.0.1")]).as_deref(), Some("10.0.0.1:9090"));
    let both = [("http.host", "10.0.0.1"), ("metrics.host", "localhost"), ("metrics.port", "0")];
    assert_eq!(address(&both).as_deref(), Some("127.0.0.1:0"));
    assert_eq!(address(&[("metrics.port", "off")]), None);
    let expected = "metrics.port = `65536` (flag): expected a port, 0 to 65535, or off";
    check_error(&[("metrics.port", "65536")], &[], expected);
    check_error(&[("metrics.host", "x")], &[], "metrics.host = `x` (flag): expected an IP address");
}

#[test]
fn a_halt_is_understood_or_refused() {
    let is_halted = |value: &str| load(&[], &[("EMERGENCY_HALT", value)]).map(|config| config.admin.emergency_halt);
    for (value, expected) in [("", false), ("0", false), ("false", false), ("1", true), ("true", true), ("on", true)] {
        assert_eq!(is_halted(value), Ok(expected), "{value}");
    }
    check_error(
        &[],
        &[("EMERGENCY_HALT", "yes")],
        "admin.emergency-halt = `yes` (environment EMERGENCY_HALT): expected true or false",
    );
}

#[test]
fn the_admin_port_is_a_number_or_off() {
    let port = |value: &str| load(&[("admin.port", value)], &[]).map(|config| config.admin.port);
    assert_eq!(port(""), Ok(None));
    assert_eq!(port("off"), Ok(None));
    assert_eq!(port("0"), Ok(Some(0)));
    assert_eq!(port("6198"), Ok(Some(6198)));
    check_error(&[("admin.port", "65536")], &[], "admin.port = `65536` (flag): expected 0 to 65535, or off");
    let token = "5a".repeat(32);
    check_error(
        &[("admin.token-file", &token)],
        &[],
        "admin.token-file = `<redacted>` (flag): expected the file that holds the token, not the token",
    );
}

#[test]
fn no_secret_is_shown() {
    let key = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";
    check_error(
        &[],
        &[("L2_JWT_SECRET", key)],
        "execution.jwt-secret = `<redacted>` (environment L2_JWT_SECRET): expected the file that holds the secret, not the secret",
    );
    check_error(
        &[("execution.rpc-url", "http://user:pass@host:1/key")],
        &[],
        "execution.rpc-url = `http://<redacted>@host:1/<redacted>` (flag): expected http://host:port, or the path of an IPC socket (https: a proxy ends TLS)",
    );
    let flags = [("execution.jwt-secret", key), ("execution.rpc-url", "http://10.0.0.1:1/key")];
    let raw = RawConfig::layered(&pairs(&flags), &pairs(&[("SEQUENCER_KEY", key)]), None).expect("known names");
    let text = raw.to_toml();
    assert!(!text.contains("ac0974be") && !text.contains("1/key") && text.contains("<redacted>"), "{text}");
}

#[test]
fn what_print_shows_is_a_file_that_says_the_same() {
    let flags = [("http.port", "7"), ("data-dir", "a \"b\" \\ c"), ("log.level", "info,x=debug")];
    let raw = with_host(RawConfig::layered(&pairs(&flags), &[], None).expect("known names"));
    let text = raw.to_toml();
    assert!(text.contains("http.port = \"7\"  # flag\n"), "{text}");
    assert!(text.contains("query.threads = \"2\"  # default\n"), "{text}");
    let path = std::env::temp_dir().join(format!("sequencer-print-{}.toml", std::process::id()));
    std::fs::write(&path, &text).expect("a writable temporary folder");
    let again = RawConfig::layered(&[], &[], Some(&path)).expect("a file of known names");
    std::fs::remove_file(&path).expect("ours");
    let values = |raw: &RawConfig| raw.entries().map(|(name, value, _)| (name, value.into_owned())).collect::<Vec<_>>();
    assert_eq!(values(&raw), values(&again));
}
