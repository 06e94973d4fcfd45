// Command bench compares Aviary's gateway with other proxies on this machine, in rounds that take turns so that what else
// the machine does hits all alike. make bench-router runs it. The load generator and the agents are in this process.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// options are what the flags say.
type options struct {
	bin       string
	out       string
	commit    string
	rounds    int
	seconds   float64
	rate      int
	streams   int
	proxies   string
	workloads string
}

func main() {
	if len(os.Args) == 5 && os.Args[1] == "reverseproxy" {
		fmt.Fprintln(os.Stderr, "bench:", reverseProxy(os.Args[2], os.Args[3], os.Args[4]))
		os.Exit(1)
	}
	var o options
	flag.StringVar(&o.bin, "bin", "../bin", "`folder` of the gateway, with the other proxies in bench/ below it")
	flag.StringVar(&o.out, "o", "", "`file` whose table between the bench-router markers is replaced")
	flag.StringVar(&o.commit, "commit", "unknown", "commit the gateway was built from, for the table")
	flag.IntVar(&o.rounds, "rounds", 5, "how often every proxy has its turn")
	flag.Float64Var(&o.seconds, "seconds", 2, "how long each timed workload goes on, in seconds")
	flag.IntVar(&o.rate, "rate", 5000, "requests a second of the open loop")
	flag.IntVar(&o.streams, "streams", 2000, "idle streams")
	flag.StringVar(&o.proxies, "proxies", "all", "comma-separated `names`: "+strings.Join(names(), ", "))
	flag.StringVar(&o.workloads, "workloads", "all", "comma-separated `names`: "+strings.Join(workloads, ", "))
	flag.Parse()
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

var workloads = []string{"c1", "c32", "open", "sse", "idle"}

func names() []string {
	var all []string
	for _, c := range contestants() {
		all = append(all, c.name)
	}
	return all
}

// wanted is the list that the flag names, in the order of all.
func wanted(list string, all []string) ([]string, error) {
	if list == "all" {
		return all, nil
	}
	asked := strings.Split(list, ",")
	for _, a := range asked {
		if !slices.Contains(all, a) {
			return nil, fmt.Errorf("%q is unknown: want some of %s", a, strings.Join(all, ", "))
		}
	}
	return slices.DeleteFunc(slices.Clone(all), func(n string) bool { return !slices.Contains(asked, n) }), nil
}

func run(o options) error {
	chosen, err := wanted(o.proxies, names())
	if err != nil {
		return err
	}
	todo, err := wanted(o.workloads, workloads)
	if err != nil {
		return err
	}
	if o.rounds < 1 || o.seconds <= 0 || o.rate < 1 || o.streams < 1 {
		return errors.New("-rounds, -seconds, -rate and -streams must be above 0")
	}
	if o.out != "" { // better now than after ten minutes
		if _, _, err := around(o.out); err != nil {
			return err
		}
	}
	var agents [2]*agent
	for i := range agents {
		if agents[i], err = startAgent(); err != nil {
			return err
		}
		defer agents[i].free()
	}
	b := &board{options: o, agents: agents, todo: todo, absent: map[string]string{}, failures: map[string][]string{}, versions: map[string]string{}, values: map[key]series{}}
	for _, c := range contestants() {
		if slices.Contains(chosen, c.name) {
			b.enter(c)
		}
	}
	b.play()
	return b.report()
}

// play lets every contestant have its turn in every round, and every round begins with another one.
func (b *board) play() {
	for b.round = range b.rounds {
		for i := range b.entered {
			c := b.entered[(i+b.round)%len(b.entered)]
			fmt.Fprintf(os.Stderr, "round %d of %d: %s\n", b.round+1, b.rounds, c.name)
			if err := b.turn(c); err != nil {
				fmt.Fprintf(os.Stderr, "%s: %v\n", c.name, err)
				b.failures[c.name] = append(b.failures[c.name], fmt.Sprintf("round %d: %s", b.round+1, firstLine(err.Error())))
			}
		}
	}
}

// entry is a contestant that is there.
type entry struct {
	contestant
	program string
}

// key names a series of values.
type key struct{ proxy, what string }

// series holds a value by round. A round in which the proxy failed has none, and doesn't move the others.
type series map[int]float64

// board collects what was measured.
type board struct {
	options
	agents   [2]*agent
	todo     []string
	entered  []entry
	round    int                 // under way, from 0
	absent   map[string]string   // why, by name
	failures map[string][]string // of single rounds, by name
	versions map[string]string
	values   map[key]series
}

func (b *board) put(name, what string, v float64) {
	k := key{name, what}
	if b.values[k] == nil {
		b.values[k] = series{}
	}
	b.values[k][b.round] = v
}

func (b *board) enter(c contestant) {
	if c.args == nil {
		b.entered = append(b.entered, entry{contestant: c})
		return
	}
	program, err := c.program(b.bin)
	if err != nil {
		b.absent[c.name] = err.Error()
		return
	}
	if program, err = filepath.Abs(program); err != nil {
		b.absent[c.name] = err.Error()
		return
	}
	b.versions[c.name] = strings.TrimPrefix(filepath.Base(program), c.name+"-")
	if c.version != nil {
		raw, err := exec.Command(program, c.version...).CombinedOutput() //nolint:gosec // the programs of contestants.go
		if err != nil {
			b.absent[c.name] = "does not run: " + err.Error()
			return
		}
		b.versions[c.name] = firstLine(string(raw))
	}
	b.entered = append(b.entered, entry{c, program})
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return line[:min(len(line), 200)]
}

// turn starts the proxy anew, runs every workload on it and ends it.
func (b *board) turn(c entry) error {
	dir, err := os.MkdirTemp("", "bench-router-")
	if err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	p := place{dir: dir, stable: b.agents[0].addr, canary: b.agents[1].addr}
	if p.listen, err = freeAddr(); err != nil {
		return err
	}
	if p.admin, err = freeAddr(); err != nil {
		return err
	}
	r, err := c.start(c.program, p)
	if err != nil {
		return err
	}
	defer r.end()
	closedLoop(r.addr, 32, 300*time.Millisecond) // warm: connections, caches, heap
	for _, w := range b.todo {
		if err := b.work(c.name, r, w); err != nil {
			return fmt.Errorf("workload %s: %w", w, err)
		}
	}
	return nil
}

func (b *board) work(name string, r *running, workload string) error {
	put := func(what string, v float64) { b.put(name, what, v) }
	d := time.Duration(b.seconds * float64(time.Second))
	before, stable, canary := r.usage(), b.agents[0].asked.Load(), b.agents[1].asked.Load()
	var got result
	var err error
	switch workload {
	case "c1":
		got = closedLoop(r.addr, 1, d)
	case "c32":
		got = closedLoop(r.addr, 32, d)
	case "open":
		got = openLoop(r.addr, b.rate, 64, d)
	case "sse":
		got, err = flushes(r.addr, 4, d)
	case "idle":
		if r.cmd == nil {
			return nil
		}
		put("idle before", float64(r.memory())/(1<<20))
		err = hold(r.addr, b.streams, func() { put("idle total", float64(r.memory())/(1<<20)) })
		b.agents[0].free()
		b.agents[1].free()
		return err
	}
	if err != nil {
		return err
	}
	if got.requests == 0 {
		return errors.New("no request was answered")
	}
	put(workload+" rps", got.rps())
	if r.cmd != nil {
		put(workload+" cpu", float64((r.usage()-before).Microseconds())/float64(got.requests))
		stable, canary = b.agents[0].asked.Load()-stable, b.agents[1].asked.Load()-canary
		put(workload+" canary", 100*float64(canary)/float64(stable+canary))
	}
	put(workload+" p50", got.p50*1e6)
	put(workload+" p99", got.p99*1e6)
	put(workload+" failed", float64(got.failed))
	return nil
}
