// Runs the workload of ../workload.rs on go-ethereum's own state packages (core/state, triedb and trie over pebble, path scheme) and prints a
// JSON line per row.
//
//	statepeer load --data DIR --accounts N --slots N
//	statepeer run  --data DIR --accounts N --slots N --mode plain|prefetch|witness --series 1000x40,10000x20,slots-10000x12 --reads N
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/rawdb"
	"github.com/ethereum/go-ethereum/core/state"
	"github.com/ethereum/go-ethereum/core/stateless"
	"github.com/ethereum/go-ethereum/core/tracing"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/ethdb"
	"github.com/ethereum/go-ethereum/ethdb/pebble"
	"github.com/ethereum/go-ethereum/triedb"
	"github.com/ethereum/go-ethereum/triedb/pathdb"
)

const (
	cacheBytes = 256 << 20
	// Changes of a commit while the first state is loaded.
	loadChunk = 100_000
	// A prefetcher counts as finished when the process has been idle for this long.
	idleStep = 10 * time.Millisecond
)

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "statepeer:", err)
		os.Exit(1)
	}
}

type peer struct {
	mode     string
	disk     ethdb.Database
	tries    *triedb.Database
	states   state.Database
	root     common.Hash
	block    uint64
	accounts uint64
	slots    uint64
}

func open(dir string) *peer {
	store, err := pebble.New(filepath.Join(dir, "chaindata"), 256, 1024, "", false)
	check(err)
	disk, err := rawdb.Open(store, rawdb.OpenOptions{Ancient: filepath.Join(dir, "ancient")})
	check(err)
	config := *pathdb.Defaults
	config.TrieCleanSize = cacheBytes
	config.StateCleanSize = cacheBytes
	config.WriteBufferSize = cacheBytes
	config.JournalDirectory = dir
	tries := triedb.NewDatabase(disk, &triedb.Config{PathDB: &config})
	return &peer{disk: disk, tries: tries, states: state.NewDatabase(tries, state.NewCodeDB(disk)), root: types.EmptyRootHash}
}

func (p *peer) close() {
	check(p.tries.Close())
	check(p.disk.Close())
}

func (p *peer) fresh() *state.StateDB {
	db, err := state.New(p.root, p.states)
	check(err)
	return db
}

func (p *peer) setAccount(db *state.StateDB, number, block uint64) {
	db.SetBalance(address(number), balance(number, block), tracing.BalanceChangeUnspecified)
	db.SetNonce(address(number), nonce(number), tracing.NonceChangeUnspecified)
}

func (p *peer) commit(db *state.StateDB) {
	p.block++
	root, err := db.Commit(p.block, true, false)
	check(err)
	p.root = root
}

func (p *peer) load(accounts, slots uint64) {
	for from := uint64(0); from < accounts; from += loadChunk {
		db := p.fresh()
		for number := from; number < min(from+loadChunk, accounts); number++ {
			p.setAccount(db, number, 0)
		}
		p.commit(db)
	}
	contract := address(contractNumber)
	for from := uint64(0); from < slots; from += loadChunk {
		db := p.fresh()
		db.SetNonce(contract, 1, tracing.NonceChangeUnspecified)
		for number := from; number < min(from+loadChunk, slots); number++ {
			db.SetState(contract, slotKey(number), slotValue(number, 0))
		}
		p.commit(db)
	}
	check(p.tries.Commit(p.root, false))
}

func cpu() time.Duration {
	var usage syscall.Rusage
	check(syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// field reads a number from a file of /proc/self.
func field(file, name string) uint64 {
	text, err := os.ReadFile("/proc/self/" + file)
	check(err)
	for _, line := range strings.Split(string(text), "\n") {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			value, err := strconv.ParseUint(strings.Fields(rest)[0], 10, 64)
			check(err)
			return value
		}
	}
	check(fmt.Errorf("/proc/self/%s has no %s", file, name))
	return 0
}

// settle waits until the process does nothing.
func settle(least time.Duration) {
	before := cpu()
	for time.Sleep(least); ; time.Sleep(idleStep) {
		now := cpu()
		if now-before < idleStep/10 {
			return
		}
		before = now
	}
}

func diskBytes(dir string) (total uint64) {
	check(filepath.Walk(dir, func(_ string, info os.FileInfo, err error) error {
		if err == nil && !info.IsDir() {
			total += uint64(info.Sys().(*syscall.Stat_t).Blocks) * 512
		}
		return nil
	}))
	return total
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}

func (p *peer) print(row string, fields map[string]any) {
	fields["peer"], fields["row"] = "geth "+p.mode, row
	text, err := json.Marshal(fields)
	check(err)
	fmt.Println(string(text))
}

// series runs blocks of one size: "1000x40" accounts, "slots-10000x12" slots.
func (p *peer) series(name string) {
	kind, countText, label := "accounts", name, ""
	if rest, ok := strings.CutPrefix(countText, "warm-"); ok {
		countText, label = rest, "warm-"
	}
	if rest, ok := strings.CutPrefix(countText, "slots-"); ok {
		kind, countText = "slots", rest
	}
	var count, blocks uint64
	_, err := fmt.Sscanf(countText, "%dx%d", &count, &blocks)
	check(err)
	var roots, commits, cpus []float64
	var nodes, nodeBytes int
	written := field("io", "wchar")
	for turn := uint64(0); turn < blocks; turn++ {
		rootTime, commitTime, cpuTime, witness := p.one(kind, count)
		roots, commits, cpus = append(roots, rootTime), append(commits, commitTime), append(cpus, cpuTime)
		if witness != nil {
			nodes, nodeBytes = len(witness.State), 0
			for node := range witness.State {
				nodeBytes += len(node)
			}
		}
	}
	// Everything in memory goes to disk, so that it counts; what the blocks share is written once.
	check(p.tries.Commit(p.root, false))
	settle(500 * time.Millisecond)
	perChange := float64(field("io", "wchar")-written) / float64(blocks*(count+count/10))
	fields := map[string]any{
		"blocks": blocks, "root_ms_min": slices.Min(roots), "root_ms_median": median(roots), "commit_ms_median": median(commits),
		"cpu_ms_median": median(cpus), "written_per_change": perChange, "root": p.root.Hex(),
	}
	if nodes > 0 {
		fields["witness_nodes"], fields["witness_bytes"] = nodes, nodeBytes
	}
	p.print(fmt.Sprintf("%s%s-%d", label, kind, count), fields)
}

// one runs a block: milliseconds to the root, of the commit after it, and CPU of both.
func (p *peer) one(kind string, count uint64) (float64, float64, float64, *stateless.Witness) {
	number := p.block + 1
	db := p.fresh()
	var witness *stateless.Witness
	if p.mode == "witness" {
		made, err := stateless.NewWitness(&types.Header{}, nil, false)
		check(err)
		witness = made
	}
	if p.mode != "plain" {
		db.StartPrefetcher("bench", witness)
	}
	if kind == "accounts" {
		for _, account := range picks(accountTag, number, p.accounts, count) {
			p.setAccount(db, account, number)
		}
		p.accounts += count / 10
	} else {
		contract := address(contractNumber)
		for _, slot := range picks(slotTag, number, p.slots, count) {
			db.SetState(contract, slotKey(slot), slotValue(slot, number))
		}
		p.slots += count / 10
	}
	db.Finalise(true)
	if p.mode != "plain" {
		settle(20 * time.Millisecond)
	}
	before, start := cpu(), time.Now()
	root := db.IntermediateRoot(true)
	rootTime := time.Since(start)
	start = time.Now()
	p.commit(db)
	commitTime := time.Since(start)
	if p.root != root {
		check(fmt.Errorf("the commit has root %s, the intermediate root was %s", p.root, root))
	}
	if p.mode != "plain" {
		db.StopPrefetcher()
	}
	ms := func(time time.Duration) float64 { return float64(time.Nanoseconds()) / 1e6 }
	return ms(rootTime), ms(commitTime), ms(cpu() - before), witness
}

func (p *peer) reads(count uint64) {
	reader, err := p.states.Reader(p.root)
	check(err)
	times := make([]float64, count)
	for turn := range times {
		number := draw(seedRead, uint64(turn), 0) % p.accounts
		account := address(number)
		start := time.Now()
		found, err := reader.Account(account)
		times[turn] = float64(time.Since(start).Nanoseconds()) / 1e3
		check(err)
		if found == nil || found.Nonce != nonce(number) {
			check(fmt.Errorf("account %d is not what was written", number))
		}
	}
	slices.Sort(times)
	p.print("read", map[string]any{"reads": count, "p50_us": times[count/2], "p99_us": times[count*99/100]})
}

func main() {
	if len(os.Args) < 2 {
		check(fmt.Errorf("usage: statepeer load|run [flags]"))
	}
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	data := flags.String("data", "", "folder of the database")
	accounts := flags.Uint64("accounts", 1_000_000, "accounts of the first state")
	slots := flags.Uint64("slots", 1_000_000, "slots of its one contract")
	mode := flags.String("mode", "plain", "plain, prefetch or witness")
	series := flags.String("series", "1000x40,10000x20,slots-10000x12", "blocks to run")
	reads := flags.Uint64("reads", 200_000, "point reads at the end")
	check(flags.Parse(os.Args[2:]))
	p := open(*data)
	p.mode = *mode
	rootFile := filepath.Join(*data, "root")
	if os.Args[1] == "load" {
		p.load(*accounts, *slots)
		check(os.WriteFile(rootFile, []byte(p.root.Hex()), 0o644))
		p.close()
		return
	}
	text, err := os.ReadFile(rootFile)
	check(err)
	p.root, p.block, p.accounts, p.slots = common.HexToHash(string(text)), firstBlock-1, *accounts, *slots
	for _, name := range strings.Split(*series, ",") {
		p.series(name)
	}
	p.reads(*reads)
	p.print("end", map[string]any{
		"root": p.root.Hex(), "disk_bytes": diskBytes(*data), "rss_bytes": field("status", "VmRSS") << 10, "rss_anon_bytes": field("status", "RssAnon") << 10,
	})
	p.close()
}
