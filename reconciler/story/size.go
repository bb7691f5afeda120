package story

import "fmt"

// Size is an amount of bytes in words, by the units that PostgreSQL's settings have: 1 kB is 1024 bytes.
func Size(bytes float64) string {
	units := []string{"B", "kB", "MB", "GB", "TB"}
	for bytes >= 1024 && len(units) > 1 {
		bytes, units = bytes/1024, units[1:]
	}
	if bytes < 10 && units[0] != "B" {
		return fmt.Sprintf("%.1f %s", bytes, units[0])
	}
	return fmt.Sprintf("%.0f %s", bytes, units[0])
}
