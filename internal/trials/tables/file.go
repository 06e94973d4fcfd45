package main

import (
	"fmt"
	"os"
	"strings"
)

// The markers between which the tables stand.
const (
	begin = "<!-- tables:begin -->"
	end   = "<!-- tables:end -->"
)

// checkMarkers reports whether tables can be put into a file.
func checkMarkers(path string) error {
	_, _, err := cut(path)
	return err
}

// insert puts text between the markers of a file.
func insert(path, text string) error {
	before, after, err := cut(path)
	if err != nil {
		return err
	}
	whole := before + begin + "\n\n" + strings.TrimSpace(text) + "\n\n" + end + after
	if err := os.WriteFile(path, []byte(whole), 0o644); err != nil { //nolint:gosec // a page of the documentation, which is for everybody
		return fmt.Errorf("write the tables: %w", err)
	}
	return nil
}

// cut is what is before and after the markers of a file.
func cut(path string) (before, after string, err error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return "", "", fmt.Errorf("read the page for the tables: %w", err)
	}
	before, rest, found := strings.Cut(string(raw), begin)
	_, after, closed := strings.Cut(rest, end)
	if !found || !closed {
		return "", "", fmt.Errorf("%s: want the lines %s and %s, in this order", path, begin, end)
	}
	return before, after, nil
}
