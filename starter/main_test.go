package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestRun(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		args string
		code int
		out  string
		err  string
	}{
		{"version", 0, "starter ", ""},
		{"--help", 0, "Exit codes", ""},
		{"frobnicate", 2, "", "unknown command"},
	} {
		var out, errs bytes.Buffer
		code := run(t.Context(), strings.Fields(tt.args), &out, &errs)
		if code != tt.code || !strings.Contains(out.String(), tt.out) || !strings.Contains(errs.String(), tt.err) {
			t.Errorf("starter %s: code %d, stdout %q, stderr %q", tt.args, code, out.String(), errs.String())
		}
	}
}
