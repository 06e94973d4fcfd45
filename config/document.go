package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// maxSize bounds a file, in bytes.
const maxSize = 1 << 20

// read is a file's content. Errors: the file can't be read, or it is larger than maxSize (as Problems).
func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err // names the file
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return data, nil
}

// document is the one YAML document in data, as a tree. Errors are Problems.
func document(file string, data []byte) (*yaml.Node, error) {
	problem := func(line int, format string, args ...any) error {
		return Problems{{File: file, Line: line, Message: fmt.Sprintf(format, args...)}}
	}
	if len(data) > maxSize {
		return nil, problem(1, "the file is larger than 1 MiB, want less")
	}
	if line, what := unprintable(data); line > 0 {
		return nil, problem(line, "%s, want text in UTF-8", what)
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var first yaml.Node
	err := decoder.Decode(&first)
	switch {
	case errors.Is(err, io.EOF):
		return nil, problem(1, "the file is empty, want a YAML document")
	case err != nil:
		line, message := syntax(err, data)
		return nil, problem(line, "not YAML: %s", message)
	case len(first.Content) != 1:
		return nil, problem(1, "the file is empty, want a YAML document")
	}
	root := first.Content[0]
	if root.Kind == yaml.ScalarNode && root.ShortTag() == "!!null" {
		return nil, problem(max(1, root.Line), "the file is empty, want a YAML document")
	}
	var second yaml.Node
	err = decoder.Decode(&second)
	switch {
	case err == nil:
		return nil, problem(max(1, second.Line), "a second YAML document begins here, want one document in a file")
	case !errors.Is(err, io.EOF):
		line, message := syntax(err, data)
		return nil, problem(line, "not YAML: %s", message)
	}
	return root, nil
}

// unprintable is the line of the first byte that can't be in a YAML text, and what it is; 0 if there is none.
func unprintable(data []byte) (line int, what string) {
	line = 1
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			return line, fmt.Sprintf("byte 0x%02x is not UTF-8", data[i])
		case r == '\n':
			line++
		case r < ' ' && r != '\t' && r != '\r', r == 0x7f:
			return line, fmt.Sprintf("control character 0x%02x", r)
		}
		i += size
	}
	return 0, ""
}

var (
	syntaxError   = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)
	grammarError  = regexp.MustCompile(`^did not find expected (<|node|key|'-'|',')`)
	unknownAnchor = regexp.MustCompile(`^unknown anchor '(.*)' referenced`)
)

// syntax is the line and the message of an error of the YAML parser: the line where what it could not read began, or 1 if that
// is not known. It mends two of the parser's habits: errors of the grammar name the line before, unknown anchors none.
func syntax(err error, data []byte) (line int, message string) {
	text := err.Error()
	line = 1
	if m := syntaxError.FindStringSubmatch(text); m != nil {
		text = strings.TrimPrefix(text, m[0])
		if n, err := strconv.Atoi(m[1]); err == nil && n > 0 {
			line = n
			if grammarError.MatchString(text) {
				line++
			}
		}
	}
	if m := unknownAnchor.FindStringSubmatch(text); m != nil {
		if before, _, ok := bytes.Cut(data, []byte("*"+m[1])); ok {
			line = 1 + bytes.Count(before, []byte("\n"))
		}
	}
	return line, strings.ReplaceAll(text, "\n", " ")
}
