package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func kill(pid int) { _ = syscall.Kill(pid, syscall.SIGKILL) }

var somewhere = place{dir: "/dir", listen: "127.0.0.1:1001", admin: "127.0.0.1:1002", stable: "127.0.0.1:1003", canary: "127.0.0.1:1004"}

// Every proxy listens where it is asked, knows both agents, and splits 95 to 5.
func TestContestantsAreSetUpAlike(t *testing.T) {
	t.Parallel()
	splits := map[string][]string{
		"aviary":  {"access_log: {sample: 0.01}", "admin_listen: " + somewhere.admin},
		"nginx":   {"5% canary", "worker_processes 2", "access_log off", "keepalive 128", "proxy_http_version 1.1"},
		"haproxy": {"weight 95", "weight 5", "nbthread 2", "http-reuse always"},
		"caddy":   {"weighted_round_robin 95 5", "keepalive_idle_conns_per_host"},
		"traefik": {"weight: 95", "weight: 5", "maxidleconnsperhost=256"},
	}
	for _, c := range contestants() {
		if c.name == direct {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			text := strings.Join(c.args(somewhere), "\n")
			for _, s := range c.settings(somewhere) {
				text += "\n" + s
			}
			for _, want := range append(splits[c.name], somewhere.listen, somewhere.stable, somewhere.canary) {
				if !strings.Contains(text, want) {
					t.Errorf("%q is missing in:\n%s", want, text)
				}
			}
			if strings.Contains(text, "%!") {
				t.Errorf("a verb of the format is left:\n%s", text)
			}
		})
	}
}

func TestWanted(t *testing.T) {
	t.Parallel()
	all := []string{"a", "b", "c"}
	for _, c := range []struct {
		list string
		want []string
	}{
		{"all", all}, {"c,a", []string{"a", "c"}}, {"b", []string{"b"}}, {"d", nil}, {"a,", nil}, {"", nil},
	} {
		t.Run(c.list, func(t *testing.T) {
			t.Parallel()
			got, err := wanted(c.list, all)
			if (err != nil) != (c.want == nil) || !slices.Equal(got, c.want) {
				t.Errorf("got %q, %v, want %q", got, err, c.want)
			}
		})
	}
}

// Bad options are refused before anything is started.
func TestRunRefuses(t *testing.T) {
	t.Parallel()
	good := options{bin: t.TempDir(), rounds: 1, seconds: 1, rate: 1, streams: 1, proxies: direct, workloads: "c1"}
	plain := filepath.Join(t.TempDir(), "plain.md")
	if err := os.WriteFile(plain, []byte("# no markers\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(o *options)
		want   string
	}{
		"proxy":    {func(o *options) { o.proxies = "apache" }, `"apache" is unknown`},
		"workload": {func(o *options) { o.workloads = "c2" }, `"c2" is unknown`},
		"rounds":   {func(o *options) { o.rounds = 0 }, "must be above 0"},
		"seconds":  {func(o *options) { o.seconds = -1 }, "must be above 0"},
		"rate":     {func(o *options) { o.rate = 0 }, "must be above 0"},
		"streams":  {func(o *options) { o.streams = 0 }, "must be above 0"},
		"markers":  {func(o *options) { o.out = plain }, "has no lines"},
		"no file":  {func(o *options) { o.out = plain + ".not" }, "read the file of -o"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := good
			c.change(&o)
			if err := run(o); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestBuiltFindsTheVersion(t *testing.T) {
	t.Parallel()
	bin := t.TempDir()
	find := built("proxy-*")
	if _, err := find(bin); err == nil {
		t.Error("found what isn't there")
	}
	if err := os.WriteFile(filepath.Join(bin, "proxy-v3"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := find(bin); err != nil || filepath.Base(got) != "proxy-v3" {
		t.Errorf("got %s, %v", got, err)
	}
}
