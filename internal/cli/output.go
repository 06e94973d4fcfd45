package cli

import (
	"bytes"
	"encoding/json"
	"fmt"

	"gopkg.in/yaml.v3"
)

// emit writes a value in the form that was asked for; table writes it for people.
func (a *app) emit(value any, table func()) error {
	if a.output == "table" {
		table()
		return nil
	}
	text, err := encode(value, a.output)
	if err != nil {
		return err
	}
	_, err = a.Out.Write(text)
	return err
}

// encode is a value as indented JSON or as YAML with the same keys in the same order.
func encode(value any, form string) ([]byte, error) {
	text, err := encodeJSON(value, "  ")
	if err != nil || form != "yaml" {
		return text, err
	}
	// JSON is YAML, so the tree of the one, without its flow style and quotes, is the other.
	var tree yaml.Node
	if err := yaml.Unmarshal(text, &tree); err != nil {
		return nil, fmt.Errorf("turn the output into YAML: %w", err)
	}
	unstyle(&tree)
	var out bytes.Buffer
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(2)
	if err := encoder.Encode(&tree); err != nil {
		return nil, fmt.Errorf("turn the output into YAML: %w", err)
	}
	return out.Bytes(), nil
}

// encodeJSON is a value as JSON with a newline at its end; checks keep their < and >. Without indentation it is one line.
func encodeJSON(value any, indentation string) ([]byte, error) {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", indentation)
	if err := encoder.Encode(value); err != nil {
		return nil, fmt.Errorf("encode the output: %w", err)
	}
	return out.Bytes(), nil
}

func unstyle(n *yaml.Node) {
	n.Style = 0
	for _, c := range n.Content {
		unstyle(c)
	}
}
