package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// made is a board with values that need no proxy.
func made(values map[key]series) *board {
	return &board{
		options: options{rounds: 3, seconds: 1, rate: 5000, streams: 2000, commit: "abc"},
		todo:    []string{"c32"}, values: values,
		absent: map[string]string{}, failures: map[string][]string{}, versions: map[string]string{},
	}
}

func TestCell(t *testing.T) {
	t.Parallel()
	b := made(map[key]series{
		{direct, "c32 p50"}:   {0: 10, 1: 30, 2: 20},
		{"aviary", "c32 p50"}: {0: 120, 1: 100, 2: 140},
		{"nginx", "c32 p50"}:  {0: 100, 2: 110},
	})
	for _, c := range []struct {
		name    string
		against bool
		want    string
	}{
		{"aviary", false, "120 [100–140]"},
		{"aviary", true, "100 [80–120]"},
		{"nginx", false, "105 [100–110]"},
		{"caddy", false, "–"},
		{"caddy", true, "–"},
		{direct, true, "–"},
		{direct, false, "20 [10–30]"},
	} {
		t.Run(fmt.Sprintf("%s against direct %t", c.name, c.against), func(t *testing.T) {
			t.Parallel()
			if got := b.cell(c.name, column{"", "c32 p50", c.against}); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

// A proxy that failed in one round is held against the others in the rounds it finished.
func TestRatioPairsRounds(t *testing.T) {
	t.Parallel()
	b := made(map[key]series{
		{"aviary", "c32 rps"}:  {0: 10, 1: 200, 2: 3000},
		{"traefik", "c32 rps"}: {1: 100, 2: 1000},
		{"haproxy", "c32 rps"}: {0: 0},
	})
	for other, want := range map[string]string{"traefik": "2.50 [2.00–3.00]", "caddy": "–", "haproxy": "–"} {
		if got := b.ratio(other, "c32 rps"); got != want {
			t.Errorf("against %s: got %s, want %s", other, got, want)
		}
	}
}

func TestNotesSayWhoWasNotThere(t *testing.T) {
	t.Parallel()
	b := made(map[key]series{{"nginx", "c32 failed"}: {0: 2, 2: 3}, {"aviary", "c32 failed"}: {0: 0}})
	b.absent["traefik"] = "not built"
	b.versions["caddy"] = "v2"
	b.failures["caddy"] = []string{"round 2: no answer"}
	var s strings.Builder
	b.notes(&s)
	want := `
- nginx: 5 requests failed in c32
- caddy: v2
- caddy: failed in round 2: no answer
- traefik: absent: not built
`
	if s.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", s.String(), want)
	}
}

func TestTableLeavesOutWhoHasNoValue(t *testing.T) {
	t.Parallel()
	b := made(map[key]series{{"nginx", "idle total"}: {0: 50}})
	var s strings.Builder
	b.table(&s, "Memory", tables["idle"])
	want := "\n**Memory**\n\n| proxy | total, MiB | before, MiB |\n|---|---|---|\n| nginx | 50 [50–50] | – |\n"
	if s.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", s.String(), want)
	}
}

func TestReplaceKeepsTheRest(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, before, want string }{
		{"old table", "# A\n" + begin + "\nold\n" + end + "\n## B\n", "# A\n" + begin + "\nnew\n" + end + "\n## B\n"},
		{"empty", begin + "\n" + end, begin + "\nnew\n" + end},
		{"no begin", "# A\n" + end + "\n", ""},
		{"no end", "# A\n" + begin + "\n", ""},
		{"wrong order", end + "\n" + begin + "\n", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "doc.md")
			if err := os.WriteFile(file, []byte(c.before), 0o600); err != nil {
				t.Fatal(err)
			}
			err := replace(file, "new\n")
			if (err != nil) != (c.want == "") {
				t.Fatalf("error %v", err)
			}
			want := c.want
			if err != nil {
				want = c.before
			}
			got, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}
