package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"text/template"

	"github.com/aviary-rollouts/aviary/rollout"
)

// FuzzRollout wants of any file: no panic, problems that each have a line, and a Spec that is right by CheckSpec and survives
// Render.
func FuzzRollout(f *testing.F) {
	for _, pattern := range []string{"testdata/*.yaml", "../examples/*.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			f.Fatalf("no files %s (%v)", pattern, err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data, false)
			f.Add(data, true)
		}
	}
	for _, analysis := range []string{
		"{settle: 30s, advance: ladder, overdispersion: {error_rate: 9.3}, cohort_spread: {error_rate: 0.05}}",
		"{settle: 0, overdispersion: {}}", "{settle: 1m}", "{overdispersion: {error_rate: 1e3}, cohort_spread: {p95_latency: 1}}",
	} {
		f.Add([]byte("analysis: "+analysis+"\n"+minimal), true)
	}
	f.Fuzz(func(t *testing.T, data []byte, flags bool) {
		var o Overrides
		if flags {
			o = versions
		}
		spec, err := Rollout("r.yaml", data, o)
		if err == nil {
			rendersToItself(t, spec)
			return
		}
		wantLines(t, err)
		if spec.Agent != "" || spec.Stages != nil {
			t.Errorf("an error, and still the spec %+v", spec)
		}
	})
}

// FuzzSettings wants no panic and problems with lines of any settings file.
func FuzzSettings(f *testing.F) {
	for _, pattern := range []string{"testdata/*er-*.yaml", "testdata/gateway-*.yaml", "../examples/worker.yaml", "../examples/gateway.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			f.Fatalf("no files %s (%v)", pattern, err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	hush := environment("AVIARY_ADMIN_TOKEN", "hush")
	f.Fuzz(func(t *testing.T, data []byte) {
		if strings.Contains(string(data), "_file") {
			return // would read files of the machine
		}
		if _, err := ParseWorker("w.yaml", data, hush); err != nil {
			wantLines(t, err)
		}
		if _, err := ParseGateway("g.yaml", data, hush); err != nil {
			wantLines(t, err)
		}
	})
}

func wantLines(t *testing.T, err error) {
	t.Helper()
	problems, ok := errors.AsType[Problems](err)
	if !ok || len(problems) == 0 {
		t.Fatalf("got %T %v, want Problems", err, err)
	}
	for _, p := range problems {
		if p.Line < 1 || p.File == "" || p.Message == "" || strings.ContainsAny(p.String(), "\r\n") {
			t.Errorf("%q has no line, no file, no message or a line break", p.String())
		}
	}
}

// FuzzQuery wants of any query that is accepted that it fills in without error.
func FuzzQuery(f *testing.F) {
	for _, q := range []string{`max(q{version="{{.Version}}"})`, "{{.Agent}}", "{{/* c */}}", "{{.Agent | .Version}}", "{{with .Agent}}{{end}}", "{{"} {
		f.Add(q)
	}
	f.Fuzz(func(t *testing.T, query string) {
		fine := true
		checkDefinition(ProviderPrometheus, rollout.Definition{Kind: "value", Better: "lower", Query: query}, func(string, string, ...any) { fine = false })
		if !fine {
			return
		}
		if _, err := fillIn(query); err != nil {
			t.Errorf("accepted %q, but: %v", query, err)
		}
	})
}

func fillIn(query string) (string, error) {
	tmpl, err := template.New("query").Parse(query)
	if err != nil {
		return "", err
	}
	var out strings.Builder
	err = tmpl.Execute(&out, struct{ Agent, Version, Window string }{"a", "v", "1m"})
	return out.String(), err
}
