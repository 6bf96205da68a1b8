package bench

import "fmt"

// FormatCounted formats a number of things, as in "1 partition" and "2 partitions".
func FormatCounted(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// FormatSize formats a number of bytes.
func FormatSize(n float64) string {
	units := []string{"B", "kB", "MB", "GB", "TB"}
	i := 0
	for n >= 1000 && i < len(units)-1 {
		n /= 1000
		i++
	}
	return FormatDigits(n) + " " + units[i]
}

// FormatNumber formats a large number, in words from ten thousand on.
func FormatNumber(n float64) string {
	switch {
	case n >= 1e9:
		return FormatDigits(n/1e9) + " billion"
	case n >= 1e6:
		return FormatDigits(n/1e6) + " million"
	case n >= 1e4:
		return FormatDigits(n/1e3) + " thousand"
	default:
		return fmt.Sprintf("%.0f", n)
	}
}

// FormatMicros formats a time in microseconds.
func FormatMicros(us float64) string {
	if us >= 10_000 {
		return FormatDigits(us/1e3) + " ms"
	}
	return FormatDigits(us) + " us"
}

// FormatDigits formats a number with three significant digits.
func FormatDigits(n float64) string {
	switch {
	case n == 0:
		return "0"
	case n >= 100:
		return fmt.Sprintf("%.0f", n)
	case n >= 10:
		return fmt.Sprintf("%.1f", n)
	case n >= 0.1:
		return fmt.Sprintf("%.2f", n)
	default:
		return fmt.Sprintf("%.2g", n)
	}
}
