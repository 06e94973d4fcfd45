package config

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"

	"gopkg.in/yaml.v3"
)

// Secret is a token or a password that settings name by file (token_file) or by environment variable (token_env). A literal is
// refused. It prints, logs and marshals as [secret], never as what it is. With the tag "inline" its keys are file and env alone.
type Secret struct {
	File  string // absolute or relative to the working directory; empty: not from a file
	Env   string // empty: not from the environment
	value string
}

// NewSecret is a secret that is known already, for tests and for programs that keep secrets elsewhere.
func NewSecret(value string) Secret { return Secret{value: value} }

// Reveal is the secret itself, without white space around it; empty if none is set.
func (s Secret) Reveal() string { return s.value }

// Set reports whether there is a secret.
func (s Secret) Set() bool { return s.value != "" }

const hidden = "[secret]"

// String hides the secret.
func (s Secret) String() string { return hidden }

// Format hides the secret from every verb, %#v and %x included.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, hidden) }

// MarshalText hides the secret.
func (s Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// LogValue hides the secret.
func (s Secret) LogValue() slog.Value { return slog.StringValue(hidden) }

// Path is the path of a file. One that is relative is relative to the settings file that names it.
type Path string

var envName = regexp.MustCompile(`^[A-Z][A-Z0-9_]{0,63}$`)

// path decodes a Path.
func (d *decoder) path(n *yaml.Node, v reflect.Value, path string) {
	if n.ShortTag() != "!!str" || n.Value == "" || strings.ContainsRune(n.Value, 0) {
		d.problem(n.Line, path, "%s, want %s", shown(n), want(v.Type()))
		return
	}
	v.SetString(d.locate(n.Value))
}

func (d *decoder) locate(file string) string {
	if filepath.IsAbs(file) {
		return file
	}
	return filepath.Join(d.dir, file)
}

// secret decodes one of the two keys of a Secret.
func (d *decoder) secret(n *yaml.Node, v reflect.Value, key, path string) {
	s := v.Addr().Interface().(*Secret)
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	byFile := strings.HasSuffix(key, "file")
	switch {
	case n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str" || n.Value == "":
		// What was written is not shown: it may be the secret.
		if byFile {
			d.problem(n.Line, path, "want the path of a file that holds the secret")
		} else {
			d.problem(n.Line, path, "want the name of an environment variable that holds the secret")
		}
	case s.File != "" || s.Env != "":
		base := strings.TrimSuffix(strings.TrimSuffix(key, "file"), "env")
		d.problem(n.Line, path, "both %[1]sfile and %[1]senv are given, want one", base)
	case byFile:
		var err error
		if *s, err = SecretFromFile(d.locate(n.Value)); err != nil {
			d.problem(n.Line, path, "%v", err)
		}
	default:
		var err error
		if *s, err = SecretFromEnv(n.Value, d.lookup); err != nil {
			d.problem(n.Line, path, "%v", err)
		}
	}
}

// SecretFromEnv is the secret in an environment variable, without white space around it. Errors: there is none.
func SecretFromEnv(name string, lookup Lookup) (Secret, error) {
	value, ok := lookup(name)
	s := Secret{Env: name, value: strings.TrimSpace(value)}
	if !ok || s.value == "" {
		what := "the environment variable of this name" // not named if it looks like the secret itself
		if envName.MatchString(name) {
			what = "the environment variable " + name
		}
		return s, fmt.Errorf("%s is not set, want it to hold the secret", what)
	}
	return s, nil
}

// maxSecret bounds a secret, in bytes.
const maxSecret = 64 << 10

// SecretFromFile is the secret in a file of at most 64 KiB, without white space around it. Errors: it can't be read, or there is
// none.
func SecretFromFile(path string) (Secret, error) {
	s := Secret{File: path}
	f, err := os.Open(path)
	if err != nil {
		return s, fmt.Errorf("%w, want a file that holds the secret", err)
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	text := strings.TrimSpace(string(raw))
	switch {
	case err != nil:
		return s, fmt.Errorf("%w, want a file that holds the secret", err)
	case len(raw) > maxSecret:
		return s, fmt.Errorf("%s is larger than 64 KiB, want a file that holds the secret alone", path)
	case text == "":
		return s, fmt.Errorf("%s is empty, want a file that holds the secret", path)
	}
	s.value = text
	return s, nil
}
