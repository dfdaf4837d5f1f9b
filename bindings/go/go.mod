module nucleus

go 1.24
