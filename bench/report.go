package main

import (
	"bufio"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// The table goes between these lines of the file given by -o.
const (
	begin = "<!-- bench-router: begin -->"
	end   = "<!-- bench-router: end -->"
)

// column is one thing that is measured. Against says that the direct one's median is taken off.
type column struct {
	title, what string
	against     bool
}

var tables = map[string][]column{
	"c1":   {{"rps", "c1 rps", false}, {"CPU µs/request", "c1 cpu", false}, {"added p50, µs", "c1 p50", true}, {"added p99, µs", "c1 p99", true}},
	"c32":  {{"rps", "c32 rps", false}, {"CPU µs/request", "c32 cpu", false}, {"added p50, µs", "c32 p50", true}, {"added p99, µs", "c32 p99", true}, {"canary, %", "c32 canary", false}},
	"open": {{"rps", "open rps", false}, {"CPU µs/request", "open cpu", false}, {"added p50, µs", "open p50", true}, {"added p99, µs", "open p99", true}},
	"sse":  {{"flush p50, µs", "sse p50", false}, {"flush p99, µs", "sse p99", false}, {"added p50, µs", "sse p50", true}},
	"idle": {{"total, MiB", "idle total", false}, {"before, MiB", "idle before", false}},
}

func (b *board) report() error {
	var s strings.Builder
	fmt.Fprintf(&s, "%s, %d cores, %s, %s, gateway of commit %s; %d rounds of %g s. Medians [lowest–highest].\n",
		processor(), runtime.NumCPU(), installedMemory(), time.Now().UTC().Format(time.DateOnly), b.commit, b.rounds, b.seconds)
	titles := map[string]string{
		"c1": "JSON, one connection", "c32": "JSON, 32 connections", "open": fmt.Sprintf("JSON, %d requests a second, from the planned time", b.rate),
		"sse": "SSE, from the agent's write to the client", "idle": fmt.Sprintf("Memory of the proxy with %d idle streams", b.streams),
	}
	for _, w := range b.todo {
		b.table(&s, titles[w], tables[w])
	}
	b.ratios(&s)
	b.notes(&s)
	fmt.Print(s.String())
	if b.out == "" {
		return nil
	}
	return replace(b.out, s.String())
}

func (b *board) table(s *strings.Builder, title string, columns []column) {
	fmt.Fprintf(s, "\n**%s**\n\n| proxy |", title)
	for _, c := range columns {
		fmt.Fprintf(s, " %s |", c.title)
	}
	s.WriteString("\n|---|" + strings.Repeat("---|", len(columns)) + "\n")
	for _, name := range names() {
		if !slices.ContainsFunc(columns, func(c column) bool { return len(b.values[key{name, c.what}]) > 0 }) {
			continue
		}
		fmt.Fprintf(s, "| %s |", name)
		for _, c := range columns {
			fmt.Fprintf(s, " %s |", b.cell(name, c))
		}
		s.WriteString("\n")
	}
}

func (b *board) cell(name string, c column) string {
	v := slices.Sorted(maps.Values(b.values[key{name, c.what}]))
	base := 0.0
	if c.against {
		d, ok := b.median(direct, c.what)
		if !ok || name == direct {
			return "–"
		}
		base = d
	}
	if len(v) == 0 {
		return "–"
	}
	return fmt.Sprintf("%.0f [%.0f–%.0f]", middle(v)-base, v[0]-base, v[len(v)-1]-base)
}

// middle is the median of sorted values, of which there must be some.
func middle(sorted []float64) float64 { return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2 }

func (b *board) median(name, what string) (float64, bool) {
	v := slices.Sorted(maps.Values(b.values[key{name, what}]))
	if len(v) == 0 {
		return 0, false
	}
	return middle(v), true
}

// ratios holds Aviary against the others, round by round, so that what slows the whole machine cancels out.
func (b *board) ratios(s *strings.Builder) {
	rows := []struct{ title, what string }{
		{"rps, 1 connection", "c1 rps"}, {"rps, 32 connections", "c32 rps"}, {"CPU per request, 32 connections", "c32 cpu"},
		{"CPU per request of the open loop", "open cpu"},
		{"p99 of the open loop", "open p99"}, {"SSE flush p50", "sse p50"}, {"memory of idle streams", "idle total"},
	}
	fmt.Fprint(s, "\n**Aviary's figure divided by the other's**\n\n| figure | Traefik | Caddy | nginx | haproxy |\n|---|---|---|---|---|\n")
	for _, r := range rows {
		if len(b.values[key{"aviary", r.what}]) == 0 {
			continue
		}
		fmt.Fprintf(s, "| %s |", r.title)
		for _, other := range []string{"traefik", "caddy", "nginx", "haproxy"} {
			fmt.Fprintf(s, " %s |", b.ratio(other, r.what))
		}
		s.WriteString("\n")
	}
}

func (b *board) ratio(other, what string) string {
	ours, theirs := b.values[key{"aviary", what}], b.values[key{other, what}]
	var all []float64
	for round, v := range ours {
		if theirs[round] > 0 {
			all = append(all, v/theirs[round])
		}
	}
	if len(all) == 0 {
		return "–"
	}
	slices.Sort(all)
	return fmt.Sprintf("%.2f [%.2f–%.2f]", middle(all), all[0], all[len(all)-1])
}

// notes say who was there in which version, who was not, and what failed.
func (b *board) notes(s *strings.Builder) {
	s.WriteString("\n")
	for _, name := range names() {
		switch {
		case b.absent[name] != "":
			fmt.Fprintf(s, "- %s: absent: %s\n", name, b.absent[name])
		case b.versions[name] != "" && name != "reverseproxy":
			fmt.Fprintf(s, "- %s: %s\n", name, b.versions[name])
		}
		for _, f := range b.failures[name] {
			fmt.Fprintf(s, "- %s: failed in %s\n", name, f)
		}
		for _, w := range b.todo {
			sum := 0.0
			for _, v := range b.values[key{name, w + " failed"}] {
				sum += v
			}
			if sum > 0 {
				fmt.Fprintf(s, "- %s: %.0f requests failed in %s\n", name, sum, w)
			}
		}
	}
}

// around is what the file has before and after the table, the markers with it.
func around(file string) (head, tail string, err error) {
	raw, err := os.ReadFile(file) //nolint:gosec // the file the caller named
	if err != nil {
		return "", "", fmt.Errorf("read the file of -o: %w", err)
	}
	head, rest, ok := strings.Cut(string(raw), begin)
	_, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		return "", "", fmt.Errorf("%s has no lines %q and %q to write between", file, begin, end)
	}
	return head + begin + "\n", end + tail, nil
}

// replace puts text between the markers and leaves the rest of the file as it is now.
func replace(file, text string) error {
	head, tail, err := around(file)
	if err != nil {
		return err
	}
	return os.WriteFile(file, []byte(head+text+tail), 0o644) //nolint:gosec // a public document
}

func processor() string {
	if name := field("/proc/cpuinfo", "model name"); name != "" {
		return name
	}
	return runtime.GOARCH
}

func installedMemory() string {
	var kib int64
	if _, err := fmt.Sscan(field("/proc/meminfo", "MemTotal"), &kib); err != nil {
		return "unknown memory"
	}
	return fmt.Sprintf("%d GiB", (kib+(1<<19))>>20)
}

// field is the first value of a name in a file of "name: value" lines.
func field(file, name string) string {
	f, err := os.Open(file) //nolint:gosec // two files of /proc
	if err != nil {
		return ""
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if k, v, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(k) == name {
			return strings.TrimSpace(v)
		}
	}
	return ""
}
