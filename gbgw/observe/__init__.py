"""What the program tells about itself. Just above base: everyone writes facts here, `serve` reads them."""
