//! viem, ethers and web3.py run their scenarios against our node.

use std::path::Path;
use std::process::Command;

use super::sequencer::Sequencer;

#[test]
fn javascript_clients_work() {
    let Some(folder) = super::peer("SEQUENCER_NODE_CLIENTS", "javascript_clients_work") else { return };
    let _turn = super::turn();
    for fork in ["prague", "osaka"] {
        let sequencer = Sequencer::start(fork);
        for script in ["viem.mjs", "ethers.mjs"] {
            let mut command = Command::new("node");
            command.arg(folder.join(script));
            run(command, script, &sequencer);
        }
        sequencer.stop();
    }
}

#[test]
fn web3_py_works() {
    let Some(python) = super::peer("SEQUENCER_PYTHON", "web3_py_works") else { return };
    let _turn = super::turn();
    let sequencer = Sequencer::start("prague");
    let mut command = Command::new(python);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/python/web3_client.py"));
    run(command, "web3_client.py", &sequencer);
    sequencer.stop();
}

/// The script prints its steps and exits 0, or says what it expected and got.
#[track_caller]
fn run(mut command: Command, name: &str, sequencer: &Sequencer) {
    command.arg(sequencer.rpc.url()).arg(sequencer.ws_url());
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    print!("{stdout}");
    assert!(output.status.success(), "{name}: {}\n{stdout}{stderr}\n{}", output.status, sequencer.log_tail());
}
