package flagd_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidwall/gjson"

	"github.com/aviary-rollouts/aviary/activities/traffic"
	"github.com/aviary-rollouts/aviary/activities/traffic/flagd"
	"github.com/aviary-rollouts/aviary/activities/traffic/traffictest"
	"github.com/aviary-rollouts/aviary/rollout"
)

const fresh = `{
  "$schema": "https://flagd.dev/schema/v0/flags.json",
  "flags": {
    "dark.mode": {"state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "off",   "custom": [1.50, "ü"]},
    "support-agent": {"state": "ENABLED", "variants": {"stable": "v41"}, "defaultVariant": "stable"},
    "nobody-knows": {"state": "ENABLED", "variants": {"stable": "v1"}, "defaultVariant": "stable"}
  }
}
`

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "flags.json")
	if err := os.WriteFile(path, []byte(text), 0o640); err != nil {
		t.Fatal(err)
	}
	return path
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func route(weight rollout.Weight, revision int64) rollout.Route {
	return rollout.Route{
		Agent: "support-agent", Stable: "v41", Canary: "v42", Weight: weight, Owner: "o", Revision: revision, Lease: rollout.Duration(time.Minute),
	}
}

// guarded runs the guard's part beside a driver: a lease that no renewal has changed for its time is expired.
func guarded(t *testing.T, d traffic.Leased) {
	t.Helper()
	type seen struct {
		renewal string
		since   time.Time
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	t.Cleanup(func() { cancel(); <-done })
	go func() {
		defer close(done)
		known := map[string]seen{}
		for ctx.Err() == nil {
			leases, _ := d.Leases(ctx)
			for _, l := range leases {
				if s := known[l.Agent]; s.renewal != l.Renewal {
					known[l.Agent] = seen{l.Renewal, time.Now()}
				} else if time.Since(s.since) >= l.TTL {
					_ = d.Expire(ctx, l)
				}
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
}

func TestConformance(t *testing.T) {
	t.Parallel()
	for name, object := range map[string]*rollout.Object{"by the agent's name": nil, "by an object": {Name: "dark.agent-version"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			traffictest.Run(t, func(t *testing.T) traffictest.Plane {
				text := fresh
				if object != nil {
					text = strings.Replace(fresh, `"support-agent"`, `"dark.agent-version"`, 1)
				}
				d := flagd.New(flagd.NewFile(write(t, text)))
				if object != nil {
					// An agent is known once a rollout has claimed the flag.
					if err := d.Apply(t.Context(), rollout.Route{Agent: "support-agent", Stable: "v41", Owner: "claim", Object: object}); err != nil {
						t.Fatal(err)
					}
				}
				guarded(t, d)
				return traffictest.Plane{Driver: d, Agent: "support-agent", Stable: "v41", Canary: "v42", Object: object}
			})
		})
	}
}

// TestOthersStay: what else is in the file stays byte for byte, and so does the file's mode.
func TestOthersStay(t *testing.T) {
	t.Parallel()
	path := write(t, fresh)
	d := flagd.New(flagd.NewFile(path))
	if err := d.Apply(t.Context(), route(500, 1)); err != nil {
		t.Fatal(err)
	}
	got := read(t, path)
	before, _, _ := strings.Cut(fresh, `"support-agent"`)
	_, after, _ := strings.Cut(fresh, `"defaultVariant": "stable"},`+"\n")
	if !strings.HasPrefix(got, before) || !strings.HasSuffix(got, after) {
		t.Errorf("other flags were touched:\n%s", got)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v; want it kept", info.Mode(), err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".flags*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	// A renewal is no change of the flags.
	was, _ := os.Stat(path)
	if err := d.Apply(t.Context(), route(500, 1)); err != nil {
		t.Fatal(err)
	}
	if is, _ := os.Stat(path); !os.SameFile(was, is) {
		t.Error("a renewal wrote the flags anew")
	}
}

// TestTurns: a canary that was promoted is what the flag says, and the next rollout goes on from there.
func TestTurns(t *testing.T) {
	t.Parallel()
	path := write(t, fresh)
	d := flagd.New(flagd.NewFile(path))
	promoted := rollout.Route{Agent: "support-agent", Stable: "v42", Owner: "o", Revision: 2, Promoted: true}
	next := rollout.Route{Agent: "support-agent", Stable: "v42", Canary: "v43", Weight: 100, Owner: "p", Revision: 1}
	for _, r := range []rollout.Route{route(500, 1), promoted, next} {
		if err := d.Apply(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	flag := gjson.Get(read(t, path), "flags.support-agent")
	if flag.Get("variants").Raw == "" || flag.Get("variants.stable").String() != "v42" || flag.Get("variants.canary").String() != "v43" {
		t.Errorf("flag %s, want v42 and v43", flag.Raw)
	}
	if salts := strings.Count(flag.Get("targeting").Raw, `"p"`); salts != 1 {
		t.Errorf("targeting %s, want it salted with the new owner", flag.Get("targeting").Raw)
	}
}

// TestDrift: what somebody else does to the flag is seen, and the next Apply undoes it.
func TestDrift(t *testing.T) {
	t.Parallel()
	for name, change := range map[string][2]string{
		"switched off":     {`"ENABLED",` + "\n" + `      "variants": {` + "\n" + `        "canary"`, `"DISABLED",` + "\n" + `      "variants": {` + "\n" + `        "canary"`},
		"another version":  {`"canary": "v42"`, `"canary": "v66"`},
		"another weight":   {`500`, `5000`},
		"another default":  {`"defaultVariant": "stable",` + "\n" + `      "targeting"`, `"defaultVariant": "canary",` + "\n" + `      "targeting"`},
		"no rule any more": {`"targeting": {`, `"was": {`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := write(t, fresh)
			d := flagd.New(flagd.NewFile(path))
			if err := d.Apply(t.Context(), route(500, 1)); err != nil {
				t.Fatal(err)
			}
			set := read(t, path)
			changed := strings.Replace(set, change[0], change[1], 1)
			if changed == set {
				t.Fatalf("nothing to change in:\n%s", set)
			}
			if err := os.WriteFile(path, []byte(changed), 0o600); err != nil {
				t.Fatal(err)
			}
			if seen, err := d.Read(t.Context(), route(0, 0)); err != nil || seen.Drift == "" && seen.Stable == "v41" {
				t.Errorf("%+v, %v; want it to tell of the change", seen, err)
			}
			if err := d.Apply(t.Context(), route(500, 1)); err != nil {
				t.Fatal(err)
			}
			if seen, err := d.Read(t.Context(), route(0, 0)); err != nil || seen.Drift != "" || seen.Effective != 500 {
				t.Errorf("%+v, %v; want it put back", seen, err)
			}
		})
	}
}

// TestNotOurs: a flag that is no choice of a version is never touched, nor is a document that can't be read.
func TestNotOurs(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		text, says string
		final      bool
	}{
		"no such flag":      {`{"flags": {}}`, "there is no flag", true},
		"a switch":          {`{"flags": {"support-agent": {"state": "ENABLED", "variants": {"on": true}, "defaultVariant": "on"}}}`, "no choice of a version", true},
		"words":             {`{"flags": {"support-agent": {"state": "ENABLED", "variants": {"on": "a b"}, "defaultVariant": "on"}}}`, "no variant", true},
		"another agent's":   {`{"flags": {"support-agent": {"variants": {"stable": "v41"}, "metadata": {"aviary_agent": "x"}}}}`, "is of agent x", true},
		"a list":            {`{"flags": {"support-agent": [1]}}`, "no choice of a version", true},
		"half a file":       {`{"flags": {"support-agent": {"sta`, "not JSON", false},
		"empty":             {``, "not JSON", false},
		"no flags":          {`{}`, "no flags", false},
		"flags that aren't": {`{"flags": []}`, "no flags", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := write(t, c.text)
			d := flagd.New(flagd.NewFile(path))
			_, readErr := d.Read(t.Context(), route(0, 0))
			for what, err := range map[string]error{"apply": d.Apply(t.Context(), route(500, 1)), "read": readErr} {
				var final *traffic.Rejected
				if err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), path) || errors.As(err, &final) != c.final {
					t.Errorf("%s: error %v, want one that says %q and where, final: %v", what, err, c.says, c.final)
				}
			}
			if read(t, path) != c.text {
				t.Error("the file was touched")
			}
		})
	}
}

func TestSymbolicLink(t *testing.T) {
	t.Parallel()
	link := filepath.Join(t.TempDir(), "flags.json")
	if err := os.Symlink(write(t, fresh), link); err != nil {
		t.Fatal(err)
	}
	if err := flagd.New(flagd.NewFile(link)).Apply(t.Context(), route(500, 1)); err == nil || !strings.Contains(err.Error(), "symbolic link") {
		t.Errorf("error %v, want it to tell of the link", err)
	}
}

// TestWritersLoseNothing: four drivers, each for a flag of its own in one file.
func TestWritersLoseNothing(t *testing.T) {
	t.Parallel()
	var flags []string
	for i := range 4 {
		flags = append(flags, fmt.Sprintf(`"agent-%d": {"state": "ENABLED", "variants": {"stable": "v41"}, "defaultVariant": "stable"}`, i))
	}
	path := write(t, `{"flags": {`+strings.Join(flags, ",")+`}}`)
	var writers sync.WaitGroup
	for i := range 4 {
		writers.Go(func() {
			d := flagd.New(flagd.NewFile(path))
			for n := range 25 {
				r := route(rollout.Weight(100*i+n+1), int64(n)+1)
				r.Agent = fmt.Sprintf("agent-%d", i)
				if err := d.Apply(t.Context(), r); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	all, err := flagd.New(flagd.NewFile(path)).List(t.Context())
	if err != nil || len(all) != 4 {
		t.Fatalf("%d flags, %v; want 4", len(all), err)
	}
	for i, o := range all {
		if o.Revision != 25 || o.Weight != rollout.Weight(100*i+25) || o.Drift != "" {
			t.Errorf("%+v, want the last of 25", o)
		}
	}
}

// TestKilledWriter kills a process that writes without end: whoever reads has whole files only, and the lock dies with its holder.
func TestKilledWriter(t *testing.T) {
	t.Parallel()
	if path := os.Getenv("FLAGD_TEST_WRITER"); path != "" {
		d := flagd.New(flagd.NewFile(path))
		for n := int64(1); ; n++ {
			if err := d.Apply(context.Background(), route(rollout.Weight(n%10000), n)); err != nil {
				t.Fatal(err)
			}
		}
	}
	path := write(t, fresh)
	for range 5 {
		cmd := exec.Command(os.Args[0], "-test.run", "^TestKilledWriter$")
		cmd.Env = append(os.Environ(), "FLAGD_TEST_WRITER="+path)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		before := []byte(read(t, path))
		for deadline := time.Now().Add(time.Minute); bytes.Equal(before, []byte(read(t, path))); {
			if time.Now().After(deadline) {
				t.Fatal("the writer writes nothing")
			}
		}
		for range 200 {
			if text := read(t, path); !json.Valid([]byte(text)) {
				t.Fatalf("half a file:\n%s", text)
			}
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		seen, err := flagd.New(flagd.NewFile(path)).Read(t.Context(), route(0, 0))
		if err != nil || seen.Drift != "" {
			t.Fatalf("%+v, %v after a kill", seen, err)
		}
		if err := flagd.New(flagd.NewFile(path)).Apply(t.Context(), rollout.Route{
			Agent: "support-agent", Stable: "v41", Canary: "v42", Owner: "o", Rollback: true, Revision: seen.Revision + 1,
		}); err != nil {
			t.Fatalf("after a kill: %v", err)
		}
		if err := os.WriteFile(path, []byte(fresh), 0o640); err != nil {
			t.Fatal(err)
		}
	}
}

// TestWriterWithoutTheLock: what somebody wrote between reading and writing is not lost; the next try reads it.
func TestWriterWithoutTheLock(t *testing.T) {
	t.Parallel()
	path := write(t, fresh)
	theirs := strings.Replace(fresh, "v41", "v40", 1)
	err := flagd.NewFile(path).Update(t.Context(), func(before []byte) ([]byte, error) {
		if err := os.WriteFile(path, []byte(theirs), 0o600); err != nil {
			t.Error(err)
		}
		return append(before, '\n'), nil
	})
	if err == nil || !strings.Contains(err.Error(), "somebody else is writing it") {
		t.Errorf("error %v", err)
	}
	if got := read(t, path); got != theirs {
		t.Errorf("the file is\n%s\nwant theirs", got)
	}
}
