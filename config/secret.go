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
// refused. It prints, logs and marshals as [secret], never as what it is.
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
	byFile := strings.HasSuffix(key, "_file")
	switch {
	case n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str" || n.Value == "":
		// What was written is not shown: it may be the secret.
		if byFile {
			d.problem(n.Line, path, "want the path of a file that holds the secret")
		} else {
			d.problem(n.Line, path, "want the name of an environment variable that holds the secret")
		}
	case s.File != "" || s.Env != "":
		base := strings.TrimSuffix(strings.TrimSuffix(key, "_file"), "_env")
		d.problem(n.Line, path, "both %[1]s_file and %[1]s_env are given, want one", base)
	case byFile:
		s.File = d.locate(n.Value)
		d.readSecret(s, n.Line, path)
	default:
		s.Env = n.Value
		value, ok := d.lookup(n.Value)
		if s.value = strings.TrimSpace(value); !ok || s.value == "" {
			what := "the environment variable of this name" // not named if it looks like the secret itself
			if envName.MatchString(n.Value) {
				what = "the environment variable " + n.Value
			}
			d.problem(n.Line, path, "%s is not set, want it to hold the secret", what)
		}
	}
}

// maxSecret bounds a secret, in bytes.
const maxSecret = 64 << 10

func (d *decoder) readSecret(s *Secret, line int, path string) {
	f, err := os.Open(s.File)
	if err != nil {
		d.problem(line, path, "%v, want a file that holds the secret", err)
		return
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	s.value = strings.TrimSpace(string(raw))
	switch {
	case err != nil:
		d.problem(line, path, "%v, want a file that holds the secret", err)
	case len(raw) > maxSecret:
		s.value = ""
		d.problem(line, path, "%s is larger than 64 KiB, want a file that holds the secret alone", s.File)
	case s.value == "":
		d.problem(line, path, "%s is empty, want a file that holds the secret", s.File)
	}
}
