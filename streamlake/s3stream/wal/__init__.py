"""Write-ahead logs."""
