package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// tables runs the command.
func tables(t *testing.T, args ...string) (code int, out, errs string) {
	t.Helper()
	var o, e bytes.Buffer
	code = run(context.Background(), args, &o, &e)
	return code, o.String(), e.String()
}

// page writes a file.
func page(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "page.md")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPrint(t *testing.T) {
	t.Parallel()
	code, out, errs := tables(t, "-only", "zero", "-runs", "1")
	if code != 0 || !strings.HasPrefix(out, "Measured on ") || !strings.Contains(out, "### Stable has no errors at all") {
		t.Errorf("exit %d, printed %q, errors %q", code, out, errs)
	}
	if !strings.Contains(errs, "zero: done in ") || !strings.Contains(errs, ": 1 of 1") {
		t.Errorf("progress %q, want what is tried and done", errs)
	}
	if again, out2, _ := tables(t, "-only", "zero", "-runs", "1", "-workers", "2"); again != 0 || body(out2) != body(out) {
		t.Errorf("a second time it is another:\n%s\n%s", out, out2)
	}
}

// body is what stands below the heading.
func body(text string) string {
	_, after, _ := strings.Cut(text, "###")
	return after
}

func TestInsert(t *testing.T) {
	t.Parallel()
	path := page(t, "# Statistics\n\nbefore\n"+begin+"\nold\n"+end+"\nafter\n")
	if code, out, errs := tables(t, "-only", "zero", "-runs", "1", "-o", path); code != 0 || out != "" {
		t.Fatalf("exit %d, printed %q, errors %q", code, out, errs)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text := string(raw)
	if !strings.HasPrefix(text, "# Statistics\n\nbefore\n"+begin+"\n\nMeasured on ") || !strings.HasSuffix(text, "\n\n"+end+"\nafter\n") || strings.Contains(text, "old") {
		t.Errorf("the page is %q", text)
	}
}

func TestBadUse(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"help", []string{"-h"}, 0, "-weeks weeks"},
		{"unknown flag", []string{"-x"}, 2, "not defined: -x"},
		{"argument", []string{"x"}, 2, `unexpected argument "x"`},
		{"none of it", []string{"-weeks", "0"}, 2, "-weeks 0: want 1 or more"},
		{"unknown experiment", []string{"-only", "zero,x"}, 2, `"x" is not an experiment, want one of identical, boundary`},
		{"no page", []string{"-only", "zero", "-o", "no/such.md"}, 1, "read the page for the tables"},
		{"no markers", []string{"-only", "zero", "-o", page(t, begin)}, 1, "want the lines " + begin + " and " + end},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if code, _, errs := tables(t, tt.args...); code != tt.code || !strings.Contains(errs, tt.want) {
				t.Errorf("exit %d, want %d; errors %q, want %q", code, tt.code, errs, tt.want)
			}
		})
	}
}
